"""Calls as they were billed and as they should be: figures, costs, and what a correction of them changes in µfen.

It leaves fen and payers to `call_correction_money` and who may correct to `call_corrections`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.clock import from_us
from hub.errors import ConflictError, NotFoundError
from hub.metering.rules import MAX_TOKENS
from hub.metering.tables import RejectedUsage, Usage
from hub.orders.rating import is_subsidised, list_contract_prices, name_bill_line
from hub.orders.rules import MeterRefusedError
from hub.orders.tables import BillLine, CallCorrection, RatedUsage, UsageTranche
from hub.orders.usage_tables import Allowance, TrancheState
from serving import contract

LATE = "allowance_closed"
"""Code under which the hub keeps a record that came after its allowance was closed."""

Source = tuple[str, int, int]
"""Gateway, its epoch and the record's number: where a late record is kept."""


@dataclass(frozen=True)
class CallFigures:
    """One call as it should be billed; `source` names the kept record of a late one, whose own figures then count."""

    request_id: str
    attempt: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    source: Source | None = None


@dataclass(frozen=True)
class CallChange:
    """The change of one call; costs in µfen, 0 before for a late one."""

    figures: CallFigures
    tranche_id: str
    version_id: str
    was_ufen: int
    cost_ufen: int
    ended_at: datetime


def check_figures(calls: Sequence[CallFigures]) -> None:
    """Pass whole figures within range, each call once. Raises: MeterRefusedError."""
    seen: set[tuple[str, int]] = set()
    for call in calls:
        counts = (call.prompt_tokens, call.cached_tokens, call.completion_tokens)
        whole = all(type(count) is int and 0 <= count <= MAX_TOKENS for count in (*counts, call.attempt))
        if not whole or call.cached_tokens > call.prompt_tokens:
            raise MeterRefusedError(
                f"Call '{call.request_id}' with prompt, cached and completion tokens {counts}: give whole numbers "
                f"from 0 to {MAX_TOKENS}, cached within prompt.",
                f"调用“{call.request_id}”的词元数 {counts} 有误：须为 0..{MAX_TOKENS} 的整数，缓存不超过输入。",
                field="calls",
            )
        if (call.request_id, call.attempt) in seen:
            raise MeterRefusedError(
                f"Call '{call.request_id}' attempt {call.attempt} is given twice; give each call once.",
                f"调用“{call.request_id}”第 {call.attempt} 次尝试重复，每次调用只填一次。",
                field="calls",
            )
        seen.add((call.request_id, call.attempt))


def compare_calls(session: Session, line: BillLine, calls: Sequence[CallFigures]) -> list[CallChange]:
    """Return the calls of a line whose cost changes, rated at the line's pinned price.

    Raises:
        NotFoundError: a call that is not on this line. ConflictError: its money has not come to rest yet.
    """
    prices = list_contract_prices(session, line.price_version_id)
    changes = []
    for call in calls:
        had = _find_billed(session, line, call) or _find_late(session, line, call)
        cost = contract.cost_ufen(prices, call.prompt_tokens, call.cached_tokens, call.completion_tokens)
        if cost != had.was_ufen:
            changes.append(
                CallChange(call, had.tranche_id, had.version_id, had.was_ufen, cost_ufen=cost, ended_at=had.ended_at)
            )
    return changes


def list_billed(session: Session, line: BillLine, *, limit: int) -> list[CallFigures]:
    """Return the calls of a line that have come to rest, each with nothing as its right figures."""
    query = (
        select(RatedUsage.request_id, RatedUsage.attempt)
        .join(UsageTranche, UsageTranche.id == RatedUsage.tranche_id)
        .where(RatedUsage.bill_line_id == line.id, UsageTranche.state == TrancheState.RESOLVED)
        .order_by(RatedUsage.request_id, RatedUsage.attempt)
        .limit(limit)
    )
    return [CallFigures(request_id, attempt, 0, 0, 0) for request_id, attempt in session.execute(query)]


def read_late(session: Session, source: Source) -> tuple[CallFigures, UsageTranche, bool]:
    """Return a late record's figures, its tranche, and whether that tranche's voucher pays for it.

    Raises:
        NotFoundError: no such record kept as late. ConflictError: its tranche has not come to rest.
    """
    row = session.get(RejectedUsage, source)
    if row is None or row.code != LATE:
        raise NotFoundError.of("late usage record", "/".join(str(part) for part in source))
    record: dict[str, Any] = row.record
    allowance = session.get(Allowance, record["allowance_id"])
    if allowance is None or allowance.organisation_id != record["organisation_id"]:
        raise NotFoundError.of("allowance of the late record", record["allowance_id"])
    tranche = session.get_one(UsageTranche, allowance.tranche_id)
    _check_at_rest(tranche)
    counts = (record["prompt_tokens"], record["cached_tokens"], record["completion_tokens"])
    figures = CallFigures(record["request_id"], record["attempt"], *counts, source=source)
    return figures, tranche, is_subsidised(session, tranche, record["version_id"])


def list_late(session: Session, *, limit: int = 100) -> list[RejectedUsage]:
    """Return records that came after their allowance was closed and that no correction has billed, oldest first."""
    billed = (
        select(CallCorrection.bill_version_id)
        .where(
            CallCorrection.late_gateway_id == RejectedUsage.gateway_id,
            CallCorrection.late_gateway_epoch == RejectedUsage.gateway_epoch,
            CallCorrection.late_seq == RejectedUsage.seq,
        )
        .exists()
    )
    query = select(RejectedUsage).where(RejectedUsage.code == LATE, ~billed).order_by(RejectedUsage.received_at)
    return list(session.scalars(query.limit(limit)))


def _find_billed(session: Session, line: BillLine, call: CallFigures) -> CallChange | None:
    newest = session.scalar(
        select(CallCorrection)
        .where(
            CallCorrection.bill_line_id == line.id,
            CallCorrection.request_id == call.request_id,
            CallCorrection.attempt == call.attempt,
        )
        .order_by(CallCorrection.number.desc())
        .limit(1)
    )
    if newest is not None:
        return CallChange(call, newest.tranche_id, newest.version_id, newest.cost_ufen, 0, newest.ended_at)
    rated = session.get(RatedUsage, (call.request_id, call.attempt))
    if rated is None:
        return None
    if rated.bill_line_id != line.id:
        raise NotFoundError.of("call on this bill line", f"{call.request_id}:{call.attempt}")
    _check_at_rest(session.get_one(UsageTranche, rated.tranche_id))
    usage = session.get_one(Usage, (call.request_id, call.attempt))
    return CallChange(call, rated.tranche_id, usage.version_id, rated.cost_ufen, 0, usage.ended_at)


def _find_late(session: Session, line: BillLine, call: CallFigures) -> CallChange:
    if call.source is None:
        raise NotFoundError.of("call on this bill line", f"{call.request_id}:{call.attempt}")
    figures, tranche, subsidised = read_late(session, call.source)
    if figures != call or name_bill_line(tranche, subsidised=subsidised) != line.id:
        raise NotFoundError.of("late call on this bill line", f"{call.request_id}:{call.attempt}")
    record = session.get_one(RejectedUsage, call.source).record
    return CallChange(call, tranche.id, record["version_id"], 0, 0, from_us(record["ended_at"]))


def _check_at_rest(tranche: UsageTranche) -> None:
    if tranche.state is not TrancheState.RESOLVED:
        raise ConflictError(
            f"Tranche '{tranche.id}' of this call is not resolved yet; correct it once its money has come to rest.",
            f"该调用所在批次“{tranche.id}”尚未了结，请待其了结后再更正。",
            field="calls",
        )

"""Corrects billed calls: version n+1 of their bill line posts the differences; nothing posted before changes.

Wrong token counts, a refund by the platform's or a provider's fault, and calls that arrived after their allowance was
closed. It leaves what moves to `call_correction_money` and a second person's approval to `deciding`.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import ConflictError, InvalidValueError, NotFoundError
from hub.ids import new_id
from hub.ledger.periods import month_key
from hub.ledger.rules import derive_id
from hub.orders.call_correction_money import LineDifference, post_line, work_out_line
from hub.orders.call_figures import (
    CallChange,
    CallFigures,
    Source,
    check_figures,
    compare_calls,
    list_billed,
    read_late,
)
from hub.orders.correction_steps import (
    check_month,
    check_none_waits,
    check_reason,
    needs_second_person,
    next_number,
    note_sums,
    record_correction,
)
from hub.orders.parts import build_parts
from hub.orders.rating import find_bill_line
from hub.orders.resolving import add_received
from hub.orders.settlement import read_fault
from hub.orders.tables import BillLine, BillVersion, BillVersionState, CallCorrection, Charge, Fault
from hub.vouchers.service import claw_back

MAX_CALLS = 5_000
"""Calls in one correction, so that its writing transaction stays short."""


@dataclass(frozen=True)
class CallsWanted:
    """What calls should be billed as: their right figures, or nothing because of `fault` (platform or provider).

    With a fault the figures do not count, and no calls at all means every call of the line.
    """

    reason: str
    calls: Sequence[CallFigures] = ()
    fault: str | None = None
    month: str | None = None


def propose_call_correction(
    session: Session, actor: Actor, bill_line_id: str, wanted: CallsWanted, *, now: datetime
) -> BillVersion:
    """Correct calls of a bill line at its pinned price and share (operator); posted at once up to the limit.

    Raises:
        ReasonMissingError, PeriodClosedError, MeterRefusedError: what was asked cannot be.
        NotFoundError: no such line, or a call that is not on it.
        ConflictError: a call's tranche is open, another correction waits, or nothing would change.
        InsufficientFundsError: the firm's cash does not cover an increase.
    """
    actor.require(Role.OPERATOR)
    check_reason(wanted.reason)
    check_month(wanted.month, now)
    line = lock_line(session, bill_line_id)
    fault = _read_fault(wanted)
    calls = _list_calls(session, line, wanted, fault)
    check_figures(calls)
    version = _build_version(line, actor, wanted.reason, fault=fault, calls=calls, now=now)
    check_none_waits(session, version)
    changes = compare_calls(session, line, calls)
    if not changes:
        raise ConflictError(
            f"The calls of bill line '{line.id}' are billed so already; there is nothing to correct.",
            f"账单行“{line.id}”的调用已按此计费，无需更正。",
        )
    difference = work_out_line(session, line, changes, keep_receivers=fault is Fault.PLATFORM)
    note_sums(version, voucher_fen=difference.voucher_fen, cash_fen=difference.cash_fen)
    session.add(version)
    session.flush()
    if needs_second_person(session, version):
        record_correction(session, "correction.proposed", version, actor_id=actor.user_id, now=now)
    else:
        _post(session, line, version, changes, difference, actor_id=actor.user_id, now=now)
    return version


def bill_late_calls(
    session: Session, actor: Actor, sources: Sequence[Source], *, reason: str, now: datetime
) -> list[BillVersion]:
    """Bill calls whose records came after their allowance was closed, one correction for each bill line they fall on.

    Raises: as `propose_call_correction`.
    """
    actor.require(Role.OPERATOR)
    if not sources:
        raise InvalidValueError("Name the late records to bill.", "请选择要补记的调用记录。", field="sources")
    found: dict[str, list[CallFigures]] = defaultdict(list)
    for source in dict.fromkeys(sources):
        figures, tranche, subsidised = read_late(session, source)
        found[find_bill_line(session, tranche, subsidised=subsidised, now=now).id].append(figures)
    return [
        propose_call_correction(session, actor, line_id, CallsWanted(reason, calls), now=now)
        for line_id, calls in sorted(found.items())
    ]


def post_call_version(session: Session, line: BillLine, version: BillVersion, *, actor_id: str, now: datetime) -> None:
    """Post a correction whose second person approved; what it changes is worked out anew. The line is locked.

    Raises:
        InsufficientFundsError: the firm's cash does not cover an increase.
    """
    calls = [_read_call(entry) for entry in version.metered["calls"]]
    changes = compare_calls(session, line, calls)
    difference = work_out_line(session, line, changes, keep_receivers=version.fault == Fault.PLATFORM)
    note_sums(version, voucher_fen=difference.voucher_fen, cash_fen=difference.cash_fen)
    _post(session, line, version, changes, difference, actor_id=actor_id, now=now)


def lock_line(session: Session, bill_line_id: str) -> BillLine:
    """Return a bill line locked for a correction. Raises: NotFoundError."""
    line = session.get(BillLine, bill_line_id, with_for_update=True, populate_existing=True)
    if line is None:
        raise NotFoundError.of("bill line", bill_line_id)
    return line


def _read_fault(wanted: CallsWanted) -> Fault | None:
    if wanted.fault is None:
        return None
    fault = read_fault(wanted.fault)
    if fault not in (Fault.PLATFORM, Fault.PROVIDER):
        raise InvalidValueError(
            f"Fault '{fault}' pays what was metered; a refund of calls needs platform or provider.",
            f"责任方“{fault}”按计量付费；退款须为 platform 或 provider。",
            field="fault",
        )
    return fault


def _list_calls(session: Session, line: BillLine, wanted: CallsWanted, fault: Fault | None) -> list[CallFigures]:
    if fault is None:
        calls = list(wanted.calls)
    elif wanted.calls:
        calls = [CallFigures(call.request_id, call.attempt, 0, 0, 0) for call in wanted.calls]
    else:
        calls = list_billed(session, line, limit=MAX_CALLS + 1)
    if not 1 <= len(calls) <= MAX_CALLS:
        raise InvalidValueError(
            f"A correction of {len(calls)} calls; give 1 to {MAX_CALLS}, and several corrections for more.",
            f"更正涉及 {len(calls)} 次调用，每次更正须为 1 至 {MAX_CALLS} 次，更多请分次进行。",
            field="calls",
        )
    return calls


def _build_version(
    line: BillLine, actor: Actor, reason: str, *, fault: Fault | None, calls: Sequence[CallFigures], now: datetime
) -> BillVersion:
    return BillVersion(
        id=new_id("bvr"),
        organisation_id=line.organisation_id,
        bill_line_id=line.id,
        state=BillVersionState.PROPOSED,
        fault=str(fault) if fault else None,
        metered={"calls": [_write_call(call) for call in calls]},
        reason=reason.strip(),
        advanced_fen=0,
        proposed_by=actor.user_id,
        proposed_at=now,
    )


def _write_call(call: CallFigures) -> list[object]:
    counts = (call.prompt_tokens, call.cached_tokens, call.completion_tokens)
    return [call.request_id, call.attempt, *counts, list(call.source) if call.source else None]


def _read_call(entry: list[object]) -> CallFigures:
    request_id, attempt, prompt, cached, completion, source = entry
    return CallFigures(
        str(request_id),
        int(str(attempt)),
        int(str(prompt)),
        int(str(cached)),
        int(str(completion)),
        source=(str(source[0]), int(source[1]), int(source[2])) if isinstance(source, list) else None,
    )


def _post(
    session: Session,
    line: BillLine,
    version: BillVersion,
    changes: Sequence[CallChange],
    difference: LineDifference,
    *,
    actor_id: str,
    now: datetime,
) -> None:
    number = next_number(session, version)
    group_id = derive_id("grp", "correct", line.id, str(number))
    keep = version.fault == Fault.PLATFORM
    version.advanced_fen = post_line(
        session, line, difference, group_id=group_id, keep_receivers=keep, actor_id=actor_id, now=now
    )
    session.add_all(_build_call(line, version, change, number=number, now=now) for change in changes)
    if difference.fee_fen:
        charge = _build_charge(line, difference, number=number, group_id=group_id, now=now)
        charge.parts = build_parts(charge.id, difference.given)
        session.add(charge)
        session.flush()
        _claw_back(session, version, difference, charge, actor_id=actor_id, now=now)
    line.exact_ufen += difference.exact_ufen
    line.posted_fen += difference.fee_fen
    line.subsidised_fen += difference.voucher_fen
    if not keep:
        add_received(session, line.id, difference.given)
    version.number, version.state, version.group_id = number, BillVersionState.POSTED, group_id
    session.flush()
    record_correction(session, "bill_line.corrected", version, actor_id=actor_id, now=now)


def _claw_back(
    session: Session, version: BillVersion, difference: LineDifference, charge: Charge, *, actor_id: str, now: datetime
) -> None:
    """Tell the voucher room what came back to which grant: a claim made before then carries it as a negative line."""
    for grant_id, amount in sorted(difference.returned.items()):
        claw_back(
            session,
            grant_id=grant_id,
            charge_id=charge.id,
            correction_id=version.id,
            amount_fen=amount,
            reason=version.reason,
            actor_id=actor_id,
            now=now,
        )


def _build_call(
    line: BillLine, version: BillVersion, change: CallChange, *, number: int, now: datetime
) -> CallCorrection:
    call = change.figures
    late = call.source if change.was_ufen == 0 else None
    gateway_id, epoch, seq = late or (None, None, None)
    return CallCorrection(
        bill_version_id=version.id,
        request_id=call.request_id,
        attempt=call.attempt,
        organisation_id=line.organisation_id,
        bill_line_id=line.id,
        tranche_id=change.tranche_id,
        number=number,
        version_id=change.version_id,
        prompt_tokens=call.prompt_tokens,
        cached_tokens=call.cached_tokens,
        completion_tokens=call.completion_tokens,
        was_ufen=change.was_ufen,
        cost_ufen=change.cost_ufen,
        ended_at=change.ended_at,
        late=late is not None,
        late_gateway_id=gateway_id,
        late_gateway_epoch=epoch,
        late_seq=seq,
        corrected_at=now,
    )


def _build_charge(line: BillLine, difference: LineDifference, *, number: int, group_id: str, now: datetime) -> Charge:
    grants = sorted(difference.returned, key=lambda key: (difference.returned[key], key))
    return Charge(
        id=derive_id("chg", line.id, str(number)),
        organisation_id=line.organisation_id,
        month=month_key(now),
        version=number,
        corrects_month=line.month,
        bill_line_id=line.id,
        meter="calls",
        title_zh="模型调用",
        title_en="Hosted calls",
        quantity=0,
        price_version_id=line.price_version_id,
        fee_fen=difference.fee_fen,
        voucher_fen=difference.voucher_fen,
        cash_fen=difference.cash_fen,
        programme=line.programme if grants else None,
        rule_version_id=line.rule_version_id if grants else None,
        grant_id=grants[-1] if grants else None,
        share_num=line.share_num,
        share_den=line.share_den,
        group_id=group_id,
        charged_at=now,
    )

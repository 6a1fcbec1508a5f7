"""Blocks as gateways apply them: those that people set, and one per base whose filing no longer stands.

It leaves setting and lifting blocks to the catalogue and filings to their room.
"""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.catalogue.tables import Block
from hub.clock import to_us
from hub.filings.service import Standing, StandingState
from serving import contract

_TEXTS = {
    StandingState.WITHDRAWN: (
        "filing_withdrawn",
        "该基座模型的备案已撤销，仅其衍生模型的所有者可调用。",
        "The filing of this base model was withdrawn; only the owner of the derived model may call it.",
    ),
    StandingState.EXPIRED: (
        "filing_expired",
        "该基座模型的备案已到期，仅其衍生模型的所有者可调用。",
        "The filing of this base model has expired; only the owner of the derived model may call it.",
    ),
}


def list_blocks(
    session: Session, weights_of: Mapping[str, str], standings: Mapping[str, Standing], *, now: datetime
) -> tuple[contract.Block, ...]:
    """Return all blocks in force; `weights_of` maps the artefact digest of each served base to its weights digest."""
    rows = session.scalars(select(Block).where(Block.lifted_at.is_(None)).order_by(Block.id)).all()
    found = [block for row in rows for block in _present(row, weights_of)]
    for base_digest, weights_digest in sorted(weights_of.items()):
        texts = _TEXTS.get(standings[weights_digest].state)
        if texts is not None:
            found.append(_stop_base(base_digest, standings[weights_digest], texts, now))
    return tuple(found)


def _present(row: Block, weights_of: Mapping[str, str]) -> list[contract.Block]:
    """A block on weights becomes one per served artefact with these weights, which is what gateways compare."""
    subjects = [row.subject]
    if row.subject_kind is contract.SubjectKind.BASE:
        subjects += sorted(base for base, weights in weights_of.items() if weights == row.subject)
    return [
        contract.Block(
            subject_kind=row.subject_kind,
            subject=subject,
            scope=row.scope,
            in_flight=row.in_flight,
            code=row.code,
            message_zh=row.message_zh,
            message_en=row.message_en,
            from_at=to_us(row.from_at),
        )
        for subject in subjects
    ]


def _stop_base(base_digest: str, standing: Standing, texts: tuple[str, str, str], now: datetime) -> contract.Block:
    code, message_zh, message_en = texts
    filing = standing.filing
    since = now if filing is None else filing.withdrawn_at or filing.valid_until or now
    return contract.Block(
        subject_kind=contract.SubjectKind.BASE,
        subject=base_digest,
        scope=contract.BlockScope.PUBLIC,
        in_flight=contract.InFlight.FINISH,
        code=code,
        message_zh=message_zh,
        message_en=message_en,
        from_at=to_us(since),
    )

"""Keeps the days of claims apart: a range asks for days that no other claim on the programme is about.

A month, quarter or year asks for whatever is unclaimed up to its end, so it has no days to share. That a transfer is
claimed once is kept by the lines themselves, whatever the periods are; this leaves it to them.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.claims.rules import FREEING, DaysOverlapError, Period, read_period
from hub.claims.tables import Claim


def check_days(session: Session, programme_id: str, asked: Period, organisation_id: str) -> None:
    """Pass a period whose days are free for a firm, or for all of them where `organisation_id` is empty.

    The very same days may be asked for again: what lacked a paper the first time is claimed so.

    Raises:
        DaysOverlapError: names the claim that has a part of the days.
    """
    if not asked.is_range:
        return
    for claim in _list_standing(session, programme_id, organisation_id):
        had = read_period(claim.period)
        if claim.period != asked.text and had.start < asked.end and asked.start < had.end:
            raise DaysOverlapError(
                f"Claim no. {claim.number} ('{claim.id}') is for {claim.period}, which has days of {asked.text}; "
                "choose other days, the very same ones for what was left out then, or a month, quarter or year, which "
                "takes what is unclaimed up to its end.",
                f"第 {claim.number} 号申报（{claim.id}）的期间 {claim.period} 与 {asked.text} 有重叠；请改选其他日期，"
                "或以完全相同的日期补报当时未纳入的金额，或按月、季、年申报（纳入截至期末的未申报金额）。",
                field="period",
            )


def _list_standing(session: Session, programme_id: str, organisation_id: str) -> list[Claim]:
    """Return the claims on a programme that were not given up and that are about one of the firms asked for."""
    query = select(Claim).where(Claim.programme_id == programme_id, Claim.state.not_in(FREEING))
    if organisation_id:
        query = query.where(Claim.organisation_id.in_(("", organisation_id)))
    return list(session.scalars(query.order_by(Claim.number)))

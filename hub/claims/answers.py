"""What the HTTP of claims and authority reports answers; the API's description is made from these shapes.

It leaves redemptions, and filling the shapes, to the files of routes.
"""

from typing_extensions import TypedDict

from hub.answers import Texts
from hub.claims.figures import FirmFigures, FundFigures
from hub.claims.tables import ClaimState


class LeftOut(Texts):
    """Voucher money that was used and is not claimed yet, with what is in the way."""

    transfer_id: str
    organisation_id: str
    grant_id: str
    amount_fen: int
    code: str


class ClaimView(TypedDict):
    """A claim on a programme's authority; `organisation_id` is null where it is for all firms."""

    id: str
    programme: str
    number: int
    period: str
    organisation_id: str | None
    state: ClaimState
    amount_fen: int
    paid_fen: int | None
    difference_fen: int | None
    reference: str | None
    reason: str | None
    pack_sha256: str | None
    drafted_by: str
    submitted_by: str | None
    cut_at: str
    left_out: list[LeftOut]


class ClaimLineView(TypedDict):
    """One movement of voucher money in a claim; negative where money came back."""

    position: int
    organisation_id: str
    grant_id: str
    transfer_id: str
    amount_fen: int
    booked_at: str


class ClaimWithLines(ClaimView):
    """A claim with its lines."""

    lines: list[ClaimLineView]


class OwnClaimLine(ClaimLineView):
    """A line of the own vouchers with the number, period and state of its claim."""

    claim: int
    period: str
    state: ClaimState


class AuthorityReportView(TypedDict):
    """An issued report's particulars; the digests are those of its files."""

    period: str
    number: int
    json_sha256: str
    csv_sha256: str
    issued_by: str
    issued_at: str


class FigureChange(TypedDict):
    """A figure that differs from the report before; `uscc` is `fund` for the programme's own."""

    programme: str
    uscc: str
    figure: str
    before: int
    after: int
    difference: int


class FigureChanges(TypedDict):
    """What changed, and whether the records still give the issued bytes."""

    recounted_equal: bool
    items: list[FigureChange]


class FirmRow(FirmFigures):
    """A firm's figures by its credit code."""

    uscc: str


class ProgrammeRow(TypedDict):
    """A programme's figures: the fund's, each firm's, and the firms' together."""

    code: str
    title: Texts
    authority: str
    source: str
    fund: FundFigures
    firms: list[FirmRow]
    total: FirmFigures


class AuthorityReportFile(TypedDict):
    """The report's JSON as it is issued; amounts in fen."""

    format: str
    period: str
    from_at: str
    until_at: str
    zone: str
    demonstration: bool
    programmes: list[ProgrammeRow]

"""What the HTTP of vouchers answers, field by field; the API's description is made from these shapes.

It leaves filling them to the files of routes.
"""

from typing import Annotated, Any

from typing_extensions import TypedDict

from hub.answers import ShapeOf, Texts
from hub.organisations.tables import OwnerKind
from hub.vouchers.rule_changes import RuleChange
from hub.vouchers.rules import RuleBody
from hub.vouchers.tables import ApplicationState, Decision, GrantState, PaperKind, RuleState, Verdict


class TrancheView(TypedDict):
    """A part of a programme's fund, there from its day on."""

    label: str
    amount_fen: int
    release_at: str
    released: bool
    our_default: bool
    source: str


class RuleView(TypedDict):
    """A rule version; `sha256` is its body's, `approved_by` is null in a draft; a refused one says why."""

    id: str
    number: int
    state: RuleState
    effective_from_at: str
    effective_to_at: str | None
    tz: str
    basis_date: str
    source: str
    body: Annotated[dict[str, Any], ShapeOf(RuleBody)]
    sha256: str
    drafted_by: str
    approved_by: str | None
    refused_by: str | None
    refusal_reason: str | None


class ProgrammeView(TypedDict):
    """A programme with its fund and its rule of the day; `refusal` says why it takes no application."""

    code: str
    title: Texts
    authority: str
    source: str
    open: bool
    refusal: Texts
    fund_fen: int | None
    tranches: list[TrancheView]
    rule: RuleView | None


class RulePreview(TypedDict):
    """What a rule would change; `against` is the number of the one in force."""

    against: int | None
    items: list[Annotated[dict[str, Any], ShapeOf(RuleChange)]]


class EvidenceView(TypedDict):
    """A paper of an application; `digest` is its sha256."""

    kind: str
    name: str
    digest: str


class ReviewView(TypedDict):
    """What an officer said of an application."""

    round: int
    actor_id: str
    decision: Decision
    reason: str
    created_at: str


class ApplicationView(TypedDict):
    """An application with its decisions; `appeal` is why the firm appealed."""

    id: str
    organisation_id: str
    programme: str
    title: Texts
    rule_version_id: str
    asked_fen: int
    contract_no: str
    tier: str | None
    evidence: list[EvidenceView]
    state: ApplicationState
    round: int
    appeal: str | None
    applicant_id: str
    created_at: str
    reviews: list[ReviewView]


class GrantView(TypedDict):
    """A grant: awarded = held + settled + left + returned (to the fund, after it ended)."""

    id: str
    organisation_id: str
    application_id: str
    account_id: str
    programme: str
    title: Texts
    rule_version_id: str
    rule_number: int
    period: str
    awarded_fen: int
    held_fen: int
    settled_fen: int
    left_fen: int
    returned_fen: int
    state: GrantState
    lapse_at: str | None
    ended_at: str | None
    ended_reason: str | None


class PaperView(TypedDict):
    """A paper for a month of a grant; number, issuer and amount are an invoice's."""

    id: str
    grant_id: str
    month: str
    kind: PaperKind
    name: str
    digest: str
    number: str
    issuer_uscc: str
    amount_fen: int | None
    withdrawn: bool


class OwnerView(TypedDict):
    """Who stands behind a firm; `share_bp` in hundredths of a percent."""

    id: str
    organisation_id: str
    kind: OwnerKind
    name: str
    code: str
    share_bp: int | None
    confirmed: bool
    ended: bool


class SignView(Texts):
    """A sign that two organisations are related; `key` names it in decisions."""

    key: str


class RulingView(TypedDict):
    """An officer's decision on a pair; `signs` are the keys of what stood that day."""

    id: str
    organisation_ids: list[str]
    verdict: Verdict
    signs: list[str]
    reason: str
    decided_by: str
    created_at: str


class RelationView(TypedDict):
    """The signs of a pair, whether they block vouchers, and what was decided."""

    buyer_id: str
    seller_id: str
    blocks: bool
    signs: list[SignView]
    ruling: RulingView | None

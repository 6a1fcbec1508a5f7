"""What the HTTP of orders answers, field by field; the API's description is made from these shapes.

It leaves filling them to `present` and the files of routes.
"""

from typing import Annotated, Any, Literal

from typing_extensions import TypedDict

from hub.answers import ShapeOf, Texts
from hub.compute.answers import RentalView
from hub.orders.cash import Wallet
from hub.orders.tables import Fault, OrderState, QuoteState
from hub.orders.usage_tables import AllowanceState
from hub.prices.rules import Party
from hub.prices.tables import Meter
from hub.vouchers.rules import Refusal


class DepositView(TypedDict):
    """The transfer that booked a deposit, and the wallet after it."""

    transfer_id: str
    wallet: Annotated[dict[str, Any], ShapeOf(Wallet)]


class PinnedPrice(TypedDict):
    """The price version that a line is pinned to: `amount_fen` for each `per_units`."""

    price_version_id: str
    amount_fen: int
    per_units: int


class ShareView(TypedDict):
    """The share num/den that a voucher pays."""

    num: int
    den: int


class CoverView(TypedDict):
    """What a voucher pays of a line, by which rule version, of the money of which cap period."""

    programme: str
    rule_version_id: str
    grant_id: str
    share: ShareView
    amount_fen: int
    period: str


class QuoteLineView(TypedDict):
    """A line: list price = voucher + self-paid, and why the other programmes do not pay."""

    position: int
    meter: Meter
    title: Texts
    quantity: int
    price: PinnedPrice
    list_fen: int
    covers: list[CoverView]
    not_covered_by: list[Annotated[dict[str, Any], ShapeOf(Refusal)]]
    voucher_fen: int
    self_paid_fen: int


class QuoteView(TypedDict):
    """What a fine-tune or a rental costs at most; base, filing and data set are a fine-tune's."""

    id: str
    organisation_id: str
    state: QuoteState
    subject_kind: str
    subject: str
    base_version_id: str | None
    base_public_name: str | None
    filed: bool
    offer_id: str
    dataset_version_id: str | None
    device_ms: int
    trained_tokens: int
    list_fen: int
    voucher_fen: int
    self_paid_fen: int
    sha256: str
    created_at: str
    valid_until: str
    lines: list[QuoteLineView]


class OrderView(TypedDict):
    """An order: what is held, then what was charged; `metered` by meter once it is settled."""

    id: str
    organisation_id: str
    quote_id: str
    subject_kind: str
    subject: str
    state: OrderState
    cost_centre: str | None
    held_fen: int
    charged_fen: int
    voucher_fen: int
    self_paid_fen: int
    metered: dict[str, int] | None
    fault: Fault | None
    reason_code: str | None
    accepted_at: str
    closed_at: str | None


class EarningView(TypedDict):
    """What an organisation received of a charge; a `seller` all of it, where no split terms stand."""

    charge_id: str
    party: Party | Literal["seller"]
    amount_fen: int
    fee_fen: int
    title: Texts
    meter: str
    price_version_id: str
    month: str
    charged_at: str


class Earnings(TypedDict):
    """What can be paid out, and what it was earned with."""

    payable_fen: int
    items: list[EarningView]


class AllowanceView(TypedDict):
    """A slice of a firm's money that one gateway may spend, in µfen."""

    id: str
    organisation_id: str
    gateway_id: str
    state: AllowanceState
    amount_ufen: int
    spent_ufen: int
    granted_at: str
    expires_at: str
    closed_at: str | None


class RentalEstimate(TypedDict):
    """What device time of an offer costs at most, and what vouchers would pay."""

    device_ms: int
    list_fen: int
    voucher_fen: int
    self_paid_fen: int
    lines: list[QuoteLineView]


class RentalWithOrders(RentalView):
    """A rental with its end and, but for its provider, the orders that pay for it."""

    ends_at: str
    orders: list[OrderView]

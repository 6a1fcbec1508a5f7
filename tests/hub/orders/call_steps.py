"""Short steps that the tests of corrected calls share; each is one transaction."""

from collections.abc import Sequence

from hub.ledger.audit import check_books
from hub.ledger.invariants import check_invariants
from hub.orders.call_corrections import CallsWanted, propose_call_correction
from hub.orders.call_figures import CallFigures
from hub.orders.tables import BillLine, BillVersion
from serving.contract import AllowanceGrant
from tests.hub.money.market import Market

FEN = 1_000_000


def call(market: Market, name: str, tokens: int, *, filed: bool = True) -> str:
    """Make one call of that many completion tokens (0.08 fen each hundred), bill it, and return its line."""
    piece = market.draw(name, want_ufen=499 * FEN)
    assert isinstance(piece, AllowanceGrant)
    market.send(market.record(piece.allowance_id, name, (0, 0, tokens), filed=filed), first_seq=1)
    market.close(piece.allowance_id, through_seq=1)
    market.settle()
    return find_line(market, filed=filed).id


def find_line(market: Market, *, filed: bool = True) -> BillLine:
    """Return the newest line with or without a rule."""
    with market.sessions.read() as session:
        lines = session.query(BillLine).order_by(BillLine.created_at, BillLine.id).all()
        return [line for line in lines if (line.rule_version_id is not None) == filed][-1]


def read_line(market: Market, line_id: str) -> BillLine:
    """Return a line as it stands."""
    with market.sessions.read() as session:
        return session.get_one(BillLine, line_id)


def figures(name: str, tokens: int) -> CallFigures:
    """Return a call of completion tokens alone."""
    return CallFigures(name, 0, 0, 0, tokens)


def correct_calls(
    market: Market, line_id: str, *calls: CallFigures, fault: str | None = None, who: str = "operator"
) -> BillVersion:
    """Correct calls of a line."""
    wanted = CallsWanted("counted wrongly", _listed(calls), fault)
    with market.sessions.write() as session:
        return propose_call_correction(session, market.actors[who], line_id, wanted, now=market.now)


def assert_sound(market: Market) -> None:
    """Every invariant holds and the books balance."""
    with market.sessions.read() as session:
        assert check_books(session) == []
        assert [(found.invariant.id, found.examples) for found in check_invariants(session) if found.broken] == []


def _listed(calls: Sequence[CallFigures]) -> list[CallFigures]:
    return list(calls)

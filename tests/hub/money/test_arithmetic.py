"""Properties of the bill's arithmetic: never above the hold, never above the share, never a fen lost."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.orders.rules import UFEN_PER_FEN, LineState, Subsidy, resolve_tranche, settle_line, slice_size, split_fee
from hub.prices.rules import Party, SplitPart, fee_fen

SHARES = st.tuples(st.integers(0, 100), st.integers(1, 100)).filter(lambda share: share[0] <= share[1])
FEN = st.integers(0, 10**9)


@given(quoted=FEN, part=st.fractions(0, 1), share=SHARES, grant_left=FEN)
def test_settling_never_exceeds_the_holds(quoted: int, part: Fraction, share: tuple[int, int], grant_left: int) -> None:
    num, den = share
    voucher_held = min(quoted * num // den, grant_left)
    fee = int(quoted * part)
    paid = settle_line(fee, Subsidy(num, den, voucher_held))
    assert paid.voucher_fen + paid.cash_fen == fee
    assert 0 <= paid.voucher_fen <= voucher_held
    assert 0 <= paid.cash_fen <= quoted - voucher_held
    assert paid.voucher_fen * den <= fee * num


@given(quantity=st.integers(0, 10**12), amount=st.integers(0, 10**6), units=st.integers(1, 10**9))
def test_fees_round_down_once(quantity: int, amount: int, units: int) -> None:
    exact = Fraction(quantity * amount, units)
    assert 0 <= exact - fee_fen(quantity, amount, units) < 1


@given(
    share=SHARES,
    tranches=st.lists(st.tuples(st.integers(2, 400), st.fractions(0, 1), st.integers(0, 400)), min_size=1, max_size=30),
)
def test_tranches_bill_the_exact_sum_and_keep_the_share(
    share: tuple[int, int], tranches: list[tuple[int, Fraction, int]]
) -> None:
    num, den = share
    exact = posted = subsidised = 0
    for held, part, grant_left in tranches:
        voucher_held = min(held * num // den, grant_left)
        exact += int((held - 1) * UFEN_PER_FEN * part)
        paid = resolve_tranche(
            LineState(exact, posted, subsidised), left_fen=held, subsidy=Subsidy(num, den, voucher_held)
        )
        assert 0 <= paid.fee_fen <= held
        assert 0 <= paid.voucher_fen <= voucher_held
        assert 0 <= paid.cash_fen <= held
        posted += paid.fee_fen
        subsidised += paid.voucher_fen
        assert subsidised * den <= posted * num
        assert 0 <= exact - posted * UFEN_PER_FEN < UFEN_PER_FEN


@given(
    splits=st.lists(st.integers(0, 40), min_size=1, max_size=3).filter(lambda nums: sum(nums) <= 100),
    fees=st.lists(st.integers(0, 50), max_size=30),
)
def test_parts_add_up_and_floor_cumulatively(splits: list[int], fees: list[int]) -> None:
    parts = [SplitPart(Party.INTEGRATOR, f"org_{index}", num, 100) for index, num in enumerate(splits)]
    received, before = [0] * len(parts), 0
    for fee in fees:
        given_now = split_fee(fee, before_fen=before, received=received, parts=parts)
        assert all(amount >= 0 for amount in given_now)
        assert sum(given_now) <= fee
        received = [had + amount for had, amount in zip(received, given_now, strict=True)]
        before += fee
        assert all(had <= before * part.num // 100 for had, part in zip(received, parts, strict=True))


@given(want=st.integers(1, 10**10), held=st.integers(2, 10**4), part=st.fractions(0, 1))
def test_slices_stay_one_fen_below_the_hold(want: int, held: int, part: Fraction) -> None:
    sliced = int((held - 1) * UFEN_PER_FEN * part)
    size = slice_size(want, held_fen=held, sliced_ufen=sliced)
    assert 0 <= size <= want
    assert sliced + size <= (held - 1) * UFEN_PER_FEN


@pytest.mark.parametrize(("fee", "voucher", "cash"), [(0, 0, 0), (1, 0, 1), (2, 1, 1), (99, 49, 50), (100, 50, 50)])
def test_half_is_rounded_down(fee: int, voucher: int, cash: int) -> None:
    paid = settle_line(fee, Subsidy(1, 2, 50))
    assert (paid.voucher_fen, paid.cash_fen) == (voucher, cash)

"""Slices in memory: whatever is asked for and in whatever order, no slice is ever overdrawn."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.contract import AllowanceGrant, AllowanceRefusal, AllowanceRequest
from serving.gateway.clock import Clock
from serving.gateway.errors import GatewayError, unavailable
from serving.gateway.journal_file import Journal
from serving.gateway.wallet import SLICE_UFEN, Wallet
from tests.gateway.samples import PRICES, make_key


class Bank:
    """A hub in memory: grants what is left, takes idle slices back."""

    def __init__(self, folder: Path, balance_ufen: int) -> None:
        self.balance_ufen = balance_ufen
        self.granted: dict[str, int] = {}
        self.draws = 0
        self.now_us = 0
        self.first_grants: list[int] = []
        self.silent = False
        self.journal = Journal(folder / "j")
        clock = Clock(now_us=lambda: self.now_us, monotonic_s=lambda: self.now_us / 1e6)
        self.wallet = Wallet(
            self.journal, gateway_id="gw", gateway_epoch=1, draw=self.draw, reclaim=self.reclaim, clock=clock
        )

    async def draw(self, request: AllowanceRequest) -> AllowanceGrant | AllowanceRefusal:
        await asyncio.sleep(0)
        if self.silent:
            raise unavailable("hub_unavailable", "the hub does not answer", retry_after_s=5)
        self.draws += 1
        amount = min(request.want_ufen, self.balance_ufen)
        amount = self.first_grants.pop(0) if self.first_grants else amount
        if amount == 0:
            return AllowanceRefusal("empty", "account balance", "hub", self.total_spent(), 0, None)
        self.balance_ufen -= amount
        allowance_id = f"alw_{self.draws}"
        self.granted[allowance_id] = amount
        return AllowanceGrant(allowance_id, amount, self.now_us + 60_000_000)

    async def reclaim(self) -> None:
        for allowance_id in self.wallet.finished(closing=False):
            self.take_back(allowance_id)

    def take_back(self, allowance_id: str) -> None:
        piece = next(piece for piece in self.slices() if piece.allowance_id == allowance_id)
        self.balance_ufen += piece.amount_ufen - piece.spent_ufen
        self.granted[allowance_id] = piece.spent_ufen
        self.wallet.drop(allowance_id)

    def slices(self) -> list:  # type: ignore[type-arg]
        return [piece for purse in self.wallet._purses.values() for piece in purse.slices]

    def total_spent(self) -> int:
        return sum(piece.spent_ufen for piece in self.slices())


jobs = st.lists(st.tuples(st.integers(1, 400), st.floats(0, 1), st.integers(0, 3)), min_size=1, max_size=60)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3000), jobs)
def test_no_order_of_events_overspends(balance: int, work: list[tuple[int, float, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bank = Bank(Path(folder), balance)
        spent: list[int] = []
        codes: set[str] = set()

        async def run(worst: int, share: float, pauses: int) -> None:
            try:
                hold = await bank.wallet.reserve(make_key(1), PRICES, worst)
            except GatewayError as error:
                codes.add(error.code)
                return
            for _ in range(pauses):
                await asyncio.sleep(0)
            assert all(piece.free_ufen >= 0 for piece in bank.slices())
            cost = int(worst * share)
            assert bank.wallet.settle(hold, cost) == cost
            spent.append(cost)

        async def run_all() -> None:
            await asyncio.gather(*(run(*item) for item in work))
            await bank.wallet.stop_refills()

        asyncio.run(run_all())
        for allowance_id in bank.wallet.finished(closing=True):
            bank.take_back(allowance_id)
        assert bank.balance_ufen == balance - sum(spent) >= 0
        assert codes <= {"insufficient_quota"}
        bank.journal.close()


def test_refusals_say_why_and_spare_the_hub(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 0)

    async def ask() -> None:
        for _ in range(20):
            with pytest.raises(GatewayError) as refused:
                await bank.wallet.reserve(make_key(1), PRICES, 10)
            assert refused.value.details | {"needed": 10} == refused.value.details
            assert (refused.value.details["limit"], refused.value.details["set_by"]) == ("account balance", "hub")

    asyncio.run(ask())
    assert bank.draws <= 2
    bank.journal.close()


def test_an_expired_slice_takes_no_new_request(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 5 * SLICE_UFEN)

    async def ask() -> None:
        first = await bank.wallet.reserve(make_key(1), PRICES, 10)
        bank.now_us += 61_000_000
        second = await bank.wallet.reserve(make_key(1), PRICES, 10)
        assert first.slice is not second.slice
        assert bank.wallet.finished(closing=False) == []
        assert bank.wallet.settle(first, 4) == 4
        assert bank.wallet.finished(closing=False) == [first.slice.allowance_id]
        await bank.wallet.stop_refills()

    asyncio.run(ask())
    bank.journal.close()


def test_a_slice_is_replaced_after_a_fifth_of_its_life(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 5 * SLICE_UFEN)

    async def ask() -> None:
        first = await bank.wallet.reserve(make_key(1), PRICES, 10)
        bank.now_us += 13_000_000
        second = await bank.wallet.reserve(make_key(1), PRICES, 10)
        assert second.slice is first.slice, "nobody waits for the next one"
        await bank.wallet.stop_refills()
        third = await bank.wallet.reserve(make_key(1), PRICES, 10)
        assert third.slice is not first.slice
        assert bank.wallet.finished(closing=False) == []
        for hold in (first, second):
            bank.wallet.settle(hold, 4)
        assert bank.wallet.finished(closing=False) == [first.slice.allowance_id]

    asyncio.run(ask())
    bank.journal.close()


def test_a_slice_outlasts_a_silent_hub_for_four_fifths_of_its_life(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 5 * SLICE_UFEN)

    async def ask() -> None:
        bank.wallet.settle(await bank.wallet.reserve(make_key(1), PRICES, 10), 10)
        bank.silent = True
        for _ in range(5):
            bank.now_us += 11_000_000
            assert bank.wallet.finished(closing=False, hub_answers=False) == []
            bank.wallet.settle(await bank.wallet.reserve(make_key(1), PRICES, 10), 10)
            await bank.wallet.stop_refills()
        bank.now_us += 6_000_000
        with pytest.raises(GatewayError) as refused:
            await bank.wallet.reserve(make_key(1), PRICES, 10)
        assert refused.value.code == "hub_unavailable"

    asyncio.run(ask())
    bank.journal.close()


def test_an_old_slice_that_nobody_uses_goes_back_to_be_billed(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 5 * SLICE_UFEN)

    async def ask() -> None:
        hold = await bank.wallet.reserve(make_key(1), PRICES, 10)
        bank.wallet.settle(hold, 10)
        bank.now_us += 11_000_000
        assert bank.wallet.finished(closing=False) == [], "still young"
        bank.now_us += 2_000_000
        assert bank.wallet.finished(closing=False, hub_answers=False) == []
        assert bank.wallet.finished(closing=False) == [hold.slice.allowance_id]

    asyncio.run(ask())
    bank.journal.close()


def test_all_of_a_firms_money_in_an_old_slice_is_drawn_anew(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 1000)

    async def ask() -> None:
        first = await bank.wallet.reserve(make_key(1), PRICES, 10)
        await bank.wallet.stop_refills()
        bank.wallet.settle(first, 10)
        bank.now_us += 20_000_000
        bank.wallet.settle(await bank.wallet.reserve(make_key(1), PRICES, 10), 10)
        await bank.wallet.stop_refills()
        last = await bank.wallet.reserve(make_key(1), PRICES, 900)
        assert last.slice is not first.slice
        assert last.slice.amount_ufen == 900

    asyncio.run(ask())
    bank.journal.close()


def test_the_next_slice_is_drawn_before_it_is_needed(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 5 * SLICE_UFEN)

    async def ask() -> None:
        await bank.wallet.reserve(make_key(1), PRICES, SLICE_UFEN - 10)
        await bank.wallet.stop_refills()
        assert bank.draws == 2
        await bank.wallet.reserve(make_key(1), PRICES, 20)
        assert bank.draws == 2

    asyncio.run(ask())
    bank.journal.close()


def test_a_cost_above_all_reserves_takes_only_what_is_there(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 100)

    async def ask() -> None:
        hold = await bank.wallet.reserve(make_key(1), PRICES, 40)
        assert bank.wallet.settle(hold, 1000) == 100
        await bank.wallet.stop_refills()

    asyncio.run(ask())
    bank.journal.close()


def test_the_end_of_one_hold_does_not_hide_the_next(tmp_path: Path) -> None:
    bank = Bank(tmp_path, SLICE_UFEN)
    bank.first_grants = [3]

    async def ask() -> None:
        hold = await bank.wallet.reserve(make_key(1), PRICES, 500)
        assert hold.slice.amount_ufen > 500
        await bank.wallet.stop_refills()

    asyncio.run(ask())
    bank.journal.close()

"""Rollouts on real vLLM under load: no request fails in any switch, a worse version takes itself back."""

import shutil
import statistics
import threading
import time
from collections.abc import Iterator, Sequence

import httpx
import pytest

from benchmarks.pool_promote import measure_promotions
from tests.gateway.world import wait_for
from tests.pool.tiny_models import TinyModels
from tests.rollouts.market import RolloutMarket, register, running_market

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def market(tiny_models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RolloutMarket]:
    with running_market(tiny_models, tmp_path_factory.mktemp("rollouts")) as running:
        yield running


class Load:
    """Clients that each ask on and on in a session of their own; `seen` has what answered them."""

    def __init__(self, market: RolloutMarket, clients: int = 4) -> None:
        self.seen: list[tuple[int, str, int]] = []
        self._market, self._stop = market, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self, number: int) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._stop.is_set():
                version, status = self._market.ask(client, session=f"s{number}", tokens=16)
                self.seen.append((number, version, status))


def keeps_versions(seen: Sequence[tuple[int, str, int]]) -> bool:
    """Whether each session was answered by one version only."""
    return len({(number, version) for number, version, _ in seen}) == len({number for number, _, _ in seen})


def test_no_request_fails_in_any_switch(market: RolloutMarket) -> None:
    first, second = market.versions[:2]
    with Load(market) as load:
        rollout_id = market.start_rollout(1, 50)
        time.sleep(2.0)
        wait_for(lambda: keeps_versions(load.seen[-12:]), timeout_s=60)
        market.call("POST", f"rollouts/{rollout_id}/promote")
        wait_for(lambda: {version for _, version, _ in load.seen[-8:]} == {second}, timeout_s=60)
        market.call("POST", "deployments/roll-back", {"public_name": "factory-co/orders"})
        wait_for(lambda: {version for _, version, _ in load.seen[-8:]} == {first}, timeout_s=60)
    assert {status for _, _, status in load.seen} == {200}
    assert len(load.seen) > 40


def test_answers_that_get_worse_take_the_version_back(market: RolloutMarket) -> None:
    expected = market_answer(market)
    cases = [{"prompt": "spindle bearing", "expected": expected}]
    rollout_id = market.start_rollout(2, 50, cases=cases)
    told = wait_for(lambda: over(market, rollout_id), timeout_s=60)
    assert (told["state"], told["reason_code"]) == ("taken_back", "answers_worse")
    assert told["probe"]["stable"] == 1.0


def test_the_first_token_after_a_promotion_comes_soon(market: RolloutMarket) -> None:
    took_s = measure_promotions(market, times=3)
    assert statistics.median(took_s) <= 2.0, took_s
    assert max(took_s) <= 10.0, took_s


def over(market: RolloutMarket, rollout_id: str) -> dict[str, object] | None:
    found = market.read_rollout(rollout_id)
    return None if found["state"] == "running" else found


def market_answer(market: RolloutMarket) -> str:
    """Return what the stable version answers to the case, so that it scores 1."""
    body = {"model": "factory-co/orders", "messages": [{"role": "user", "content": "spindle bearing"}]}
    headers = {"Authorization": f"Bearer {market.key}"}
    options = {"temperature": 0, "max_tokens": 128}
    answer = httpx.post(f"{market.gateway}/v1/chat/completions", json=body | options, headers=headers, timeout=60)
    return str(answer.raise_for_status().json()["choices"][0]["message"]["content"])


def test_a_tampered_or_misnamed_adapter_never_answers(market: RolloutMarket, tiny_models: TinyModels) -> None:
    digest, folder = list(tiny_models.adapters.items())[3]
    planted = market.scene.home.parent / "store" / digest
    shutil.copytree(folder, planted)
    weights = planted / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"evil")
    misnamed = register(market.scene, "e" * 64, folder)
    for version_id in (market.versions[3], misnamed):
        market.call("POST", "rollouts", {"version_id": version_id, "percent": 50})
        told = wait_for(lambda: newest_ended(market), timeout_s=60)
        assert (told["state"], told["reason_code"]) == ("taken_back", "digest_mismatch")
        with httpx.Client(timeout=60) as client:
            seen = {market.ask(client, session=f"s{number}")[0] for number in range(20)}
        assert seen <= set(market.versions[:2])


def newest_ended(market: RolloutMarket) -> dict[str, object] | None:
    newest: dict[str, object] = market.call("GET", "rollouts")["rollouts"][0]
    return newest if newest["state"] == "taken_back" else None

"""How long a call waits for a snapshot that knows its key."""

import asyncio
import time

import pytest

from hub.ids import new_id
from serving.contract import SnapshotKey
from serving.gateway import authenticate, view
from serving.gateway.authenticate import view_knowing
from serving.gateway.clock import Clock
from serving.gateway.view import CurrentView, View
from tests.gateway.samples import make_key, make_snapshot

OLD_KEY = "0" * 32


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authenticate, "NEWS_WAIT_S", 0.1)
    monkeypatch.setattr(authenticate, "NEW_KEY_WAIT_S", 1.0)


def held(*keys: SnapshotKey) -> View:
    return View.of(make_snapshot(keys=keys, models=()))


def key_of(key_hex: str) -> SnapshotKey:
    sample = make_key(1)
    return type(sample)(**{**sample.__dict__, "key_id": f"key_{key_hex}"})


async def ask(key_hex: str, *news: View, every_s: float = 0.15) -> tuple[View, float]:
    """Ask with a key that is not known yet while snapshots come in; returns what to judge by and how long it took."""
    current = CurrentView(Clock())
    current.replace(held())
    began_s = time.monotonic()
    asked = asyncio.create_task(view_knowing(current, f"Bearer gm_{key_hex}_secret", Clock()))
    for snapshot in news:
        await asyncio.sleep(every_s)
        current.replace(snapshot)
    return await asked, time.monotonic() - began_s


def test_a_key_just_made_waits_past_snapshots_of_other_changes() -> None:
    key_hex = new_id("key").removeprefix("key_")
    known = held(key_of(key_hex))
    found, _ = asyncio.run(ask(key_hex, held(), held(), known))
    assert found is known


@pytest.mark.parametrize("key_hex", [OLD_KEY, "not a number of ours"])
def test_any_other_unknown_key_is_judged_soon(key_hex: str) -> None:
    known = held(key_of(key_hex))
    found, took_s = asyncio.run(ask(key_hex, known, every_s=0.6))
    assert key_hex not in found.keys
    assert took_s >= 0.1


def test_guessed_keys_of_now_hold_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "MAX_WAITING", 2)

    async def crowd() -> list[float]:
        current = CurrentView(Clock())
        current.replace(held())

        async def one() -> float:
            began_s = time.monotonic()
            await view_knowing(current, f"Bearer gm_{new_id('key').removeprefix('key_')}_x", Clock())
            return time.monotonic() - began_s

        return list(await asyncio.gather(*(one() for _ in range(5))))

    waits = asyncio.run(crowd())
    assert sorted(took_s >= 1.0 for took_s in waits) == [False, False, False, True, True]

"""Fault 2: the power fails between any two writes; what was acknowledged is there, because it was synced."""

import sqlite3
from pathlib import Path
from random import Random

from sqlalchemy import event

from hub.database import open_sessions
from tests.faults.ground import Ground
from tests.faults.paying import count_double, pay
from tests.faults.power import Disk, write_files
from tests.faults.tally import take_tally

PAYMENTS = 60
Acks = list[tuple[int, str]]
"""After how many deeds of the disk which payment was acknowledged."""


def pay_noted(ground: Ground, synchronous: str) -> tuple[Disk, dict[str, bytes], Acks]:
    """Pay on a noted disk and return it with the files as they were before."""
    url, disk, acks = ground.copy(), Disk(), []
    path = url.removeprefix("sqlite:///")
    base = {path: Path(path).read_bytes()}
    with disk.attached():
        opened = open_sessions(url)
        event.listen(opened.engine, "connect", lambda raw, _: raw.execute(f"PRAGMA synchronous={synchronous}"))
        event.listen(opened.engine, "connect", lambda raw, _: raw.execute("PRAGMA wal_autocheckpoint=150"))
        for number in range(PAYMENTS):
            pay(opened, f"pay-{number}", ground.pattern.owner("factory"))
            acks.append((len(disk.deeds), f"pay-{number}"))
        opened.close()
    ground.drop(url)
    return disk, base, acks


def lose_power(disk: Disk, base: dict[str, bytes], acks: Acks, folder: Path, *, cuts: int) -> tuple[int, Path]:
    """Cut the power at many moments and return how many acknowledged payments were lost, and the last database."""
    rng, lost, path = Random(2), 0, folder
    for turn in range(cuts):
        moment = rng.randrange(acks[0][0], acks[-1][0] + 1)
        place = folder / f"cut-{turn}"
        place.mkdir()
        path = write_files(disk.cut(moment, base, rng), place)
        with sqlite3.connect(path) as raw:
            assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            there = {row[0] for row in raw.execute("SELECT id FROM ledger_transfers")}
        raw.close()
        lost += sum(key not in there for at, key in acks if at <= moment)
    return lost, path


def test_a_power_cut_loses_nothing_acknowledged(sqlite_ground: Ground, long: bool, tmp_path: Path) -> None:
    """Unsynced writes are dropped, torn or kept at random; then the same payments are sent again."""
    cuts = 400 if long else 25
    disk, base, acks = pay_noted(sqlite_ground, "FULL")
    assert sum(deed.path.endswith("-wal") and deed.is_sync for deed in disk.deeds) >= PAYMENTS
    assert any(not deed.path.endswith("-wal") and deed.is_sync for deed in disk.deeds)  # checkpoints among them
    lost, path = lose_power(disk, base, acks, tmp_path, cuts=cuts)
    keys = [key for _, key in acks]
    with sqlite_ground.market(f"sqlite:///{path}") as market:
        exists = sum(not pay(market.sessions, key, market.owner("factory")) for key in keys)
        tally = take_tally(
            market.sessions,
            f"2 power cut {cuts} times, {lost} acknowledged lost",
            sent=keys,
            acked=keys,
            exists=exists,
            double=count_double(market.sessions),
        )
    assert lost == 0
    assert tally.sound, tally


def test_the_simulated_cut_can_tell(sqlite_ground: Ground, tmp_path: Path) -> None:
    """With synchronous=NORMAL acknowledged payments are lost: a test that passes both would show nothing."""
    disk, base, acks = pay_noted(sqlite_ground, "NORMAL")
    lost, _ = lose_power(disk, base, acks, tmp_path, cuts=10)
    assert lost > 0

"""What other rooms do to claimed money: a correction is netted in the next claim, a rental brings signed reports."""

import io
import json
import zipfile
from datetime import timedelta
from pathlib import Path

from hub.claims import service
from hub.claims.tables import Claim
from hub.vouchers.service import list_claw_backs
from registry.store import FolderStore
from tests.hub.money.market import Market
from tests.hub.orders.conftest import rich
from tests.hub.orders.test_corrections import correct, settled
from tests.hub.orders.test_rentals import HOUR_MS, Shop
from tests.hub.vouchers.steps import add_invoice, assert_books, balance_of, draft

__all__ = ["rich"]


def read_pack(market: Market, claim: Claim, home: Path) -> dict[str, str]:
    target = io.BytesIO()
    with market.sessions.read() as session:
        service.write_pack(session, FolderStore(home), session.get_one(Claim, claim.id), target)
    with zipfile.ZipFile(target) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_a_correction_after_the_claim_is_netted_with_its_reason(rich: Market, tmp_path: Path) -> None:
    order = settled(rich)
    for number, programme in enumerate(("model", "compute")):
        add_invoice(rich, balance_of(rich, programme).grant.id, f"F-{number}")
    first = draft(rich, programme="compute")
    with rich.sessions.write() as session:
        service.submit_claim(session, rich.actors["approver"], first.id, pack_sha256="a" * 64, now=rich.now)
    before = read_pack(rich, first, tmp_path)
    correct(rich, order, metered={"device_ms": HOUR_MS // 2, "trained_tokens": 1_000_000}, days=1)
    rich.now += timedelta(days=2)
    second = draft(rich, programme="compute")
    assert (first.amount_fen, second.amount_fen) == (600, -300)
    grant = balance_of(rich, "compute")
    assert (grant.settled_fen, grant.left_fen) == (300, 19_700)
    with rich.sessions.read() as session:
        assert [row.amount_fen for row in list_claw_backs(session, [grant.grant.id])] == [300]
    manifest = json.loads(read_pack(rich, second, tmp_path)["manifest.json"])
    assert [row["reason"] for row in manifest["claw_backs"]] == ["the meter was wrong"]
    # What was handed in before the correction is still the same to the byte.
    assert read_pack(rich, first, tmp_path) == before
    assert_books(rich)


def test_a_rentals_claim_carries_the_providers_signed_reports(rich: Market, tmp_path: Path) -> None:
    shop = Shop(rich)
    rental = shop.rent()
    shop.send(shop.report(rental, 1, 600_000, at=600))
    shop.send(shop.report(rental, 2, 1_800_000, at=1800))
    shop.end(rental, at=1801)
    shop.send(shop.report(rental, 3, 1_800_000, at=1801))
    rich.now += timedelta(days=1)
    grant = balance_of(rich, "compute")
    assert grant.settled_fen == 300
    add_invoice(rich, grant.grant.id)
    files = read_pack(rich, draft(rich, programme="compute"), tmp_path)
    [meter] = [json.loads(text) for name, text in files.items() if name.startswith("meter/")]
    assert [row["device_ms"] for row in meter["device_reports"]][:2] == [600_000, 1_800_000]
    assert all(len(row["signature"]) == 64 for row in meter["device_reports"])

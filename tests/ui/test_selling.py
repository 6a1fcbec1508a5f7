"""An integrator's way: upload, report, price and split, review, earnings."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from werkzeug.test import TestResponse

from hub.catalogue.tables import ModelVersion, UploadSession, UploadState, VersionState
from hub.orders.tables import Charge, ChargePart
from hub.orders.usage_tables import BillLine
from hub.prices.service import price_lines, split_parts
from tests.registry.builders import write_adapter
from tests.ui.test_forms import error_of
from tests.ui.world import World


def send(world: World, folder: Path, who: str = "integrator", **changes: Any) -> TestResponse:
    """Post the upload form with a folder's files."""
    fields = {"name": "fresh", "base": world.versions["demo-zh"].id, "title_zh": "新", "title_en": "Fresh"} | changes
    files = [(path.open("rb"), path.name) for path in sorted(folder.iterdir())]
    answer = world.visit(who).post("/uploads/new", data={**fields, "files": files}, content_type="multipart/form-data")
    for file, _ in files:
        file.close()
    return answer


def test_upload_passes_and_its_report_is_shown(world: World, tmp_path: Path) -> None:
    answer = send(world, write_adapter(tmp_path / "adapter"))
    assert answer.status_code == 302, answer.text
    page = world.visit("integrator").get(answer.location).text
    assert "Every check passed" in page
    assert page.count('class="check-good"') > 5
    with world.sessions.read() as session:
        version = session.scalars(select(ModelVersion).order_by(ModelVersion.id.desc())).first()
    assert version is not None
    assert version.state is VersionState.IN_REVIEW
    assert world.visit("factory").get(answer.location).status_code == 404


def test_refused_upload_says_what_to_do_and_keeps_nothing(world: World, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter", config={"auto_mapping": {"base_model_class": "x"}})
    (folder / "evil.py").write_text("import os")
    answer = send(world, folder)
    assert answer.status_code == 422
    assert "What to do" in answer.text
    assert "evil.py" in answer.text
    assert 'value="Fresh"' in answer.text
    assert "no file was kept" in error_of(answer.text, "files")
    with world.sessions.read() as session:
        (upload,) = session.scalars(select(UploadSession)).all()
    assert upload.state is UploadState.REFUSED
    assert list((world.home / "uploads").iterdir()) == []
    assert "Refused" in world.visit("integrator").get("/uploads").text


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"name": "Not Good"}, "name", "1 to 64"),
        ({"name": ""}, "name", "fill this in"),
        ({"base": ""}, "base", "Choose the base"),
        ({"scenario": "no-such"}, "scenario", "taxonomy"),
        ({"task": "no-such"}, "task", "Choose one"),
    ],
)
def test_bad_field_is_told_beside_its_input(
    world: World, tmp_path: Path, changes: dict[str, str], field: str, message: str
) -> None:
    answer = send(world, write_adapter(tmp_path / "adapter"), **changes)
    assert answer.status_code == 422
    assert message in error_of(answer.text, field)
    assert 'value="Fresh"' in answer.text
    with world.sessions.read() as session:
        assert {row.state for row in session.scalars(select(UploadSession))} <= {UploadState.REFUSED}


def test_upload_without_files(world: World, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    answer = send(world, tmp_path / "none")
    assert answer.status_code == 422
    assert error_of(answer.text, "files")


def test_price_and_split_are_published(world: World) -> None:
    client, version = world.visit("integrator"), world.versions["orders"]
    page = client.get(f"/uploads/versions/{version.id}").text
    assert 'value="20.00"' in page
    form = {"prompt": "9", "completion": "25.5", "cached": "", "integrator": "60", "base_owner": "20", "pool": "10"}
    assert client.post(f"/uploads/versions/{version.id}", data=form).location == "/uploads?done=priced"
    with world.sessions.read() as session:
        row = session.get_one(ModelVersion, version.id)
        lines = {
            line.meter: (line.amount_fen, line.per_units) for line in price_lines(session, row.price_version_id or "")
        }
        parts = {(part.party, part.num) for part in split_parts(session, row.split_terms_id) or []}
    assert lines == {"prompt": (900, 1_000_000), "completion": (2550, 1_000_000)}
    assert parts == {("integrator", 60), ("base_owner", 20), ("pool", 10)}
    assert "¥25.50" in client.get("/uploads").text


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"pool": "50"}, "pool", "add up to 120 %"),
        ({"prompt": ""}, "prompt", "Give a price"),
        ({"completion": "cheap"}, "completion", "not an amount"),
        ({"integrator": "101"}, "integrator", "from 0 to 100"),
    ],
)
def test_bad_price_keeps_what_was_typed(market: World, changes: dict[str, str], field: str, message: str) -> None:
    form = {"prompt": "9", "completion": "25.5", "integrator": "60", "base_owner": "10", "pool": "10"} | changes
    answer = market.visit("integrator").post(f"/uploads/versions/{market.versions['orders'].id}", data=form)
    assert answer.status_code == 422
    assert message in error_of(answer.text, field)
    assert 'value="10"' in answer.text


def test_nobody_prices_anothers_version(market: World) -> None:
    assert market.visit("factory").get(f"/uploads/versions/{market.versions['orders'].id}").status_code == 404


def test_earnings_add_up(world: World) -> None:
    version, integrator, factory = world.versions["orders"], world.actors["integrator"], world.actors["factory"]
    with world.sessions.write() as session:
        line = {"organisation_id": factory.organisation_id, "month": "2026-11", "share_num": 0, "share_den": 1}
        price = {"price_version_id": version.price_version_id}
        bill = BillLine(
            id="bil_1", **line, **price, programme=None, rule_version_id=None, exact_ufen=10**9, posted_fen=1000,
            subsidised_fen=0, created_at=world.now,
        )  # fmt: skip
        session.add(bill)
        session.flush()
        for serial in (1, 2):
            charge = Charge(
                id=f"chg_{serial}", **line, **price, bill_line_id="bil_1", meter="completion", title_zh="调用",
                title_en="Calls", quantity=1, fee_fen=500, voucher_fen=0, cash_fen=500, charged_at=world.now,
            )  # fmt: skip
            charge.parts = [
                ChargePart(
                    charge_id=charge.id, party="integrator", organisation_id=integrator.organisation_id, amount_fen=350
                )
            ]
            session.add(charge)
    page = world.visit("integrator").get("/uploads").text
    assert "demo-integrator/orders@1" in page
    assert "¥10.00" in page
    assert "¥7.00" in page
    assert "¥7.00" not in world.visit("operator").get("/uploads").text

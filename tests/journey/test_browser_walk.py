"""The journey once more, in Chromium, by clicking and typing: every role's pages, no error, a picture of each."""

from pathlib import Path
from typing import Any

import pytest

from examples.tasks.upload import write_upload
from examples.tasks.work_orders import generate_rows
from tests.chromium import run_browser
from tests.journey.conftest import Journey

pytestmark = [pytest.mark.engine, pytest.mark.timeout(2400)]

WALK = Path(__file__).with_name("walk.mjs")
TRAIN_ROWS, VALID_ROWS = 240, 40
RECIPE = {"epochs": 8, "learning_rate": 0.003, "batch_tokens": 512}
PICTURES = (
    "front",
    "models",
    "model",
    "run-new",
    "run",
    "endpoints",
    "vouchers",
    "statement",
    "filings",
    "offers",
    "uploads",
    "operator",
)
BLANK_BYTES = 20_000
WALK_TIMEOUT_S = 600


@pytest.fixture(scope="module")
def walk(journey: Journey, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Walk once; what was wrong, what the pages said, how long each part took."""
    rows = generate_rows(train_rows=TRAIN_ROWS, valid_rows=VALID_ROWS)
    data = tmp_path_factory.mktemp("walk") / "reports.csv"
    write_upload(data, rows, question="故障描述", answer="标准编码")
    task = {
        "base": journey.values["GUANMO_URL"],
        "credentials": str(journey.home / "demo-credentials.json"),
        "pictures": str(journey.home / "screenshots"),
        "base_model": journey.values["GUANMO_BASE_MODEL"],
        "adapter": journey.values["GUANMO_MODEL"].partition("@")[0],
        "question": next(row.question for row in rows if row.split == "valid" and not row.question.isascii()),
        "data": str(data),
        "model": "hall2-faults",
        "recipe": RECIPE,
    }
    found: dict[str, Any] = run_browser(WALK, task, timeout_s=WALK_TIMEOUT_S)
    return found


def test_nothing_goes_wrong_on_the_way(walk: dict[str, Any]) -> None:
    assert walk["wrong"] == []


def test_pages_say_what_a_person_came_for(walk: dict[str, Any]) -> None:
    seen = walk["seen"]
    assert seen["filing"].startswith("DEMO-")
    assert len(seen["answers"]) == 2
    assert all(seen["answers"])
    list_price, voucher, self_paid = (read_fen(text) for text in seen["bill"])
    assert list_price == self_paid - voucher
    assert list_price > 0
    assert (seen["key"], seen["key_again"]) == (True, False)
    assert seen["lines"] > 2
    assert read_fen(seen["ledger"]) == 0
    assert seen["audited"] == "演示东方精密制造厂"
    assert seen["audit_lines"] == seen["lines"]


def test_each_main_page_has_its_picture(journey: Journey, walk: dict[str, Any]) -> None:
    assert walk["took"], "the walk stopped before its first step"
    sizes = {name: journey.home / "screenshots" / f"{name}.png" for name in PICTURES}
    assert [name for name, path in sizes.items() if not path.is_file() or path.stat().st_size < BLANK_BYTES] == []


def read_fen(text: str) -> int:
    """Return a sum of money as a page shows it, for example `-¥1,234.50`, in fen."""
    return int(text.replace("¥", "").replace(",", "").replace(".", ""))

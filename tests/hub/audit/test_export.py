"""An export holds by itself, comes out the same twice, and shows every kind of tampering in a readable line."""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hub.audit.checkpoints import FILE
from hub.audit.export import NotSignedYetError, read_period, write_export
from hub.audit.packing import pack_verifier
from hub.audit.signing import AuditKey, Signed, verifier_key
from hub.audit.tree import root_of_leaves
from hub.audit.verifier.reading import Export, canonical, digest
from hub.audit.verifier.report import read_copy, verify
from hub.audit.verifier.signatures import is_signed
from hub.errors import ConflictError, InvalidValueError
from hub.orders import correction_steps
from hub.orders.corrections import Wanted, propose_correction
from tests.hub.audit.year import HOUR_MS, export, run_two_months, sign
from tests.hub.money.conftest import built_market  # noqa: F401  the pattern below is made from it
from tests.hub.money.market import Market

Rows = list[dict[str, Any]]
KEY = AuditKey("a secret of the tests")


@pytest.fixture
def traded(market: Market, tmp_path: Path) -> Market:
    run_two_months(market)
    sign(market.sessions, KEY, tmp_path, market)
    return market


@pytest.fixture(scope="session")
def kept() -> dict[str, Path]:
    return {}


@pytest.fixture
def whole(request: pytest.FixtureRequest, kept: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One export of both months with the checkpoints file beside it, made once and copied for nobody to write in."""
    if "place" not in kept:
        market = request.getfixturevalue("market")
        home = tmp_path_factory.mktemp("export")
        run_two_months(market)
        sign(market.sessions, KEY, home, market)
        kept["place"] = export(market.sessions, KEY, home / "books", (None, "2026-12"))
    return kept["place"]


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    target = tmp_path / "books"
    shutil.copytree(whole, target)
    return target


def outside(whole: Path) -> list[str]:
    return read_copy(whole.parent / FILE)


def failures(place: Path, **trusted: Any) -> list[str]:
    """What the verifier says of a bad export, its red lines and the reasons under them."""
    holds, lines = verify(place, **trusted)
    assert holds == (lines[-1] == "VERIFIED")
    return [line.strip() for line in lines if line.startswith(("FAIL", "      "))]


def edit(place: Path, name: str, change: Callable[[Rows], Rows | None]) -> None:
    """Change the rows of a file and set the manifest right again, as somebody who knows the format would."""
    path = place / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = change(rows) or rows
    path.write_bytes(b"".join(canonical(row) + b"\n" for row in rows))
    restate(place)


def restate(place: Path, **values: Any) -> None:
    manifest = json.loads((place / "manifest.json").read_text()) | values
    for name in manifest["files"]:
        manifest["files"][name]["sha256"] = hashlib.sha256((place / name).read_bytes()).hexdigest()
    (place / "manifest.json").write_bytes(canonical(manifest) + b"\n")


def forge(place: Path, key: AuditKey) -> None:
    """Chain and sign everything anew over the rows as they are now: what an insider with a database can do."""
    rows = {name: [json.loads(line) for line in path.read_text().splitlines()] for name, path in _paths(place)}
    annexes = {row["link"]: row["annex"] for items in rows.values() for row in items if "annex" in row}
    for item in (*rows["events"], *rows["transfers"]):
        annex = annexes.get(item["link"])
        rows["chain"][item["link"]]["digest"] = digest({"row": item["row"], "annex": annex})
    leaves, chain = [], "0" * 64
    for item in rows["chain"]:
        leaf = canonical({name: item[name] for name in ("outbox", "seq", "at", "digest")})
        leaves.append(hashlib.sha256(b"\x00" + leaf).digest())
        chain = hashlib.sha256(bytes.fromhex(chain) + leaves[-1]).hexdigest()
    root = root_of_leaves(leaves).hex()
    note = key.sign(Signed(len(leaves), root, chain, 1))
    edit(place, "chain", lambda _: rows["chain"])
    edit(place, "checkpoints", lambda _: [{"size": len(leaves), "note": note}])
    restate(place, root=root, chain_hash=chain, public_key=verifier_key(key.public))


def _paths(place: Path) -> Iterator[tuple[str, Path]]:
    return ((path.stem, path) for path in sorted(place.glob("*.jsonl")))


def test_a_true_export_is_verified(whole: Path) -> None:
    holds, lines = verify(whole, key=verifier_key(KEY.public), notes=outside(whole))
    assert holds, "\n".join(lines)
    assert [line[:4] for line in lines[1:12]] == ["ok  "] * 11
    assert "8 metered calls" in lines[0]
    assert lines[-1] == "VERIFIED"


def test_without_copies_of_the_authority_it_says_what_was_not_compared(whole: Path) -> None:
    _, lines = verify(whole)
    assert [line.split(":")[0] for line in lines if line.startswith("note")] == [
        "note  the key is the export's own",
        "note  no checkpoints of the authority were given",
    ]


def test_the_same_period_is_the_same_bytes(traded: Market, tmp_path: Path) -> None:
    first = export(traded.sessions, KEY, tmp_path / "a", (None, "2026-11"))
    traded.fund("factory", 1, "bank-later")
    sign(traded.sessions, KEY, tmp_path, traded)
    second = export(traded.sessions, KEY, tmp_path / "b", (None, "2026-11"))
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name
    packed = [export(traded.sessions, KEY, tmp_path / f"{name}.zip", (None, "2026-11")) for name in "cd"]
    assert packed[0].read_bytes() == packed[1].read_bytes()
    assert failures(packed[0]) == failures(first) == []


def test_a_later_period_stands_on_its_opening_balances(traded: Market, tmp_path: Path) -> None:
    place = export(traded.sessions, KEY, tmp_path / "december", ("2026-12", "2026-12"))
    assert failures(place, key=verifier_key(KEY.public), notes=read_copy(tmp_path / FILE)) == []
    usage = [json.loads(line)["annex"]["usage"] for line in (place / "usage.jsonl").read_text().splitlines()]
    assert [record["request_id"] for records in usage for record in records] == ["req-late", "dec-0", "dec-1", "dec-2"]
    edit(place, "bill_lines", lambda rows: [row | {"exact_ufen": row["exact_ufen"] + 1_000_000} for row in rows])
    assert any("the meter gives" in line for line in failures(place))


def test_nothing_is_exported_unsigned(traded: Market, tmp_path: Path) -> None:
    traded.fund("factory", 1, "bank-later")
    with pytest.raises(NotSignedYetError, match="1 events and 1 transfers"):
        export(traded.sessions, KEY, tmp_path / "c", (None, "2026-12"))
    sign(traded.sessions, KEY, tmp_path, traded)
    export(traded.sessions, KEY, tmp_path / "c", (None, "2026-12"))
    with pytest.raises(ConflictError, match="exists"), traded.sessions.read() as session:
        write_export(session, tmp_path / "c", read_period(None, "2026-12"), public=KEY.public)
    with pytest.raises(InvalidValueError, match="ends before"):
        read_period("2026-12", "2026-11")


def test_the_verifier_is_one_file_for_plain_python(whole: Path, tmp_path: Path) -> None:
    packed, again = tmp_path / "verify.pyz", tmp_path / "again.pyz"
    pack_verifier(packed)
    pack_verifier(again)
    assert packed.read_bytes() == again.read_bytes()
    command = [sys.executable, "-I", "-S", str(packed), str(whole), "--checkpoints", str(whole.parent / FILE)]
    good = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (good.returncode, good.stdout.splitlines()[-1]) == (0, "VERIFIED"), good.stdout + good.stderr
    bad = subprocess.run([*command, "--key", verifier_key(AuditKey("x").public)], capture_output=True, timeout=60)
    assert bad.returncode == 1
    with pytest.raises(ConflictError):
        pack_verifier(packed)


def test_a_changed_byte_shows(copy: Path) -> None:
    path = copy / "transfers.jsonl"
    path.write_text(path.read_text().replace('"deposit"', '"Deposit"', 1))
    assert failures(copy)[0] == "FAIL  files are those of the manifest"


def test_a_changed_amount_shows(copy: Path) -> None:
    edit(copy, "transfers", lambda rows: rows[5]["row"].update(amount_fen=rows[5]["row"]["amount_fen"] + 1))
    found = failures(copy)
    assert "FAIL  rows are those that were chained, none left out" in found
    assert any(line.startswith("transfer ") and "was changed: its digest" in line for line in found)
    assert "FAIL  double entry: limits at every step, closing balances" in found


def test_a_changed_meter_shows_even_where_the_bill_is_the_same(copy: Path) -> None:
    def move(rows: Rows) -> None:
        usage = rows[0]["annex"]["usage"][0]
        usage["prompt_tokens"], usage["completion_tokens"] = usage["prompt_tokens"] + 4, usage["completion_tokens"] - 1

    edit(copy, "usage", move)
    found = failures(copy)
    assert found[0] == "FAIL  rows are those that were chained, none left out"
    assert len(found) == 2
    assert found[1].startswith("event evt_")


def test_a_dropped_row_shows(copy: Path) -> None:
    edit(copy, "events", lambda rows: rows[:3] + rows[4:])
    assert any("is of the period but was left out" in line for line in failures(copy))


def test_rows_in_another_order_show(copy: Path) -> None:
    edit(copy, "transfers", lambda rows: [rows[1], rows[0], *rows[2:]])
    assert any("stands out of order or twice" in line for line in failures(copy))
    edit(copy, "chain", lambda rows: [rows[1], rows[0], *rows[2:]])
    assert any("link 0 is missing or out of order" in line for line in failures(copy))


def test_a_rewritten_trail_shows_against_the_copy_outside(copy: Path, whole: Path) -> None:
    edit(copy, "events", lambda rows: rows[0]["row"].update(actor_id="usr_somebody_else"))
    forge(copy, KEY)
    assert failures(copy) == []  # with the key and without a copy of the checkpoints nobody can tell
    found = failures(copy, notes=outside(whole))
    assert found[0] == "FAIL  checkpoints are signed"
    assert found[1].endswith("is not the one in your copy")


def test_a_forged_signature_shows(copy: Path) -> None:
    forge(copy, AuditKey("a thief"))
    found = failures(copy, key=verifier_key(KEY.public))
    assert found[0] == "FAIL  checkpoints are signed"
    assert any("is not signed by" in line for line in found)

    def spoil(rows: Rows) -> None:
        head, _, tail = rows[0]["note"].rpartition(" ")
        raw = bytearray(base64.b64decode(tail))
        raw[20] ^= 1
        rows[0]["note"] = f"{head} {base64.b64encode(raw).decode()}\n"

    edit(copy, "checkpoints", spoil)
    assert any("is not signed by" in line for line in failures(copy))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("usage", lambda doc: doc["usage"][0].update(cost_ufen=1), "was rated 1 µfen, its tokens give"),
        ("usage", lambda doc: doc["usage"][0].update(subsidised=False), "subsidised, rule and filing say otherwise"),
        ("usage", lambda doc: doc["charges"][0].update(voucher_fen=0), "is charged voucher_fen 0, the meter gives"),
        ("orders", lambda doc: doc["metered"].update(device_ms=1), "is charged fee_fen"),
        ("orders", lambda doc: doc["charges"][0]["parts"][0].update(amount_fen=1), "the ledger moved"),
        ("orders", lambda doc: doc["metered"].update(elapsed_device_ms=0), "the platform paid 601 fen for time"),
        ("corrections", lambda doc: doc["metered"].update(device_ms=0), "the meter gives 0 units"),
        ("corrections", lambda doc: doc.update(group_id="grp_none"), "the platform paid 0 fen for time"),
        (
            "corrections",
            lambda doc: doc.update(elapsed_fen=doc["elapsed_fen"] + 1),
            "for time that is not billed, the meter",
        ),
        ("corrections", lambda doc: doc.__delitem__("elapsed_fen"), "lacks or twists KeyError 'elapsed_fen'"),
        ("corrections", lambda doc: doc.update(fee_fen=7), "says fee_fen 7, its charges give"),
        ("call_corrections", lambda doc: doc.update(voucher_fen=7), "says voucher_fen 7, its charges give"),
        (
            "call_corrections",
            lambda doc: doc.update(elapsed_fen=3),
            "says 3 fen for time that is not billed, a call has none",
        ),
        (
            "call_corrections",
            lambda doc: doc["calls"][0].update(cost_ufen=5),
            "is corrected to 5 µfen, its tokens give",
        ),
        ("call_corrections", lambda doc: doc["calls"][0].update(was_ufen=7), "is corrected from 7 µfen, it was billed"),
        ("call_corrections", lambda doc: doc["charges"][0].update(voucher_fen=0), "is charged voucher_fen 0"),
        ("call_corrections", lambda doc: doc["charges"][0]["parts"][0].update(amount_fen=1), "is charged parts"),
        ("call_corrections", lambda doc: doc.update(group_id="grp_none"), "the ledger moved 0 fen of voucher"),
        ("quotes", lambda doc: doc["lines"][0].update(list_fen=9_999), "lists 9999 fen, quantity times price"),
        ("quotes", lambda doc: doc["lines"][0]["covers"][0].update(share_num=2), "is not that of rule"),
        ("quotes", lambda doc: doc.update(created_at=1), "was not in force when the quote was made"),
        ("rules", lambda doc: doc.update(approved_by=doc["drafted_by"]), "was drafted and approved by"),
        ("rules", lambda doc: doc["body"].update(per_firm_cap_fen=1), "has another body than its sha256 says"),
        ("grants", lambda doc: doc.update(amount_fen=100_000_001), "over the cap"),
        ("filings", lambda doc: doc.update(track="登记"), "needs a filed base; this one had no valid filing"),
    ],
)
def test_whatever_breaks_a_rule_shows_even_if_it_was_signed(
    copy: Path, name: str, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    edit(copy, name, lambda rows: change(next(row["annex"] for row in rows if _fits(row["annex"], name))))
    forge(copy, KEY)
    found = failures(copy)
    assert any(said in line for line in found), found
    assert "FAIL  checkpoints are signed" not in found


def test_time_that_only_the_event_names_otherwise_shows(copy: Path) -> None:
    def raise_time(rows: Rows) -> None:
        event = next(item["row"] for item in rows if item["row"]["topic"] == "bill.corrected")
        event["payload"]["elapsed_fen"] += 1

    edit(copy, "events", raise_time)
    forge(copy, KEY)
    assert any("for time that is not billed, the meter gives" in line for line in failures(copy))


def test_corrections_chained_before_their_rows_named_the_time_still_hold(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(correction_steps, "ANNEX_VERSION", 1)
        run_two_months(market)
    sign(market.sessions, KEY, tmp_path, market)
    old = export(market.sessions, KEY, tmp_path / "old", (None, "2026-12"))
    assert [("elapsed_fen" in row) for row in list_corrections(old)] == [False]
    assert failures(old) == []
    with market.sessions.write() as session:
        wanted = Wanted("counted again", {"device_ms": HOUR_MS // 2, "trained_tokens": 900_000})
        order_id = list_corrections(old)[0]["order_id"]
        version = propose_correction(session, market.actors["operator"], order_id, wanted, now=market.now)
        assert version.elapsed_fen < 0
    sign(market.sessions, KEY, tmp_path, market)
    new = export(market.sessions, KEY, tmp_path / "new", (None, "2026-12"))
    assert [row.get("elapsed_fen") for row in list_corrections(new)] == [None, version.elapsed_fen]
    assert failures(new) == []


def list_corrections(place: Path) -> Rows:
    return [row["annex"] for row in Export(place).rows("corrections")]


def test_money_that_no_bill_explains_shows(copy: Path) -> None:
    """Double entry may hold and the trail be signed: the bills still say what should have moved."""

    def raise_both(rows: Rows) -> None:
        settled = next(row["row"] for row in rows if row["row"]["code"] == "cash_settled")
        income = next(
            row["row"]
            for row in rows
            if row["row"]["group_id"] == settled["group_id"] and row["row"]["code"].startswith("income_")
        )
        settled["amount_fen"] -= 1
        income["amount_fen"] -= 1

    edit(copy, "transfers", raise_both)
    forge(copy, KEY)
    found = failures(copy)
    assert any("the bill says" in line and "the ledger moved" in line for line in found)


@pytest.mark.parametrize("secret", [str(number) for number in range(12)])
def test_any_key_is_read_back_and_checked(secret: str) -> None:
    """Some keys have a plus sign in base64, which is also what separates the parts of the line."""
    key = AuditKey(secret)
    public = base64.b64decode(verifier_key(key.public).split("+", 2)[2])[1:]
    body, _, tail = key.sign(Signed(3, "ab" * 32, "cd" * 32, 5)).partition("\n\n")
    signature = base64.b64decode(tail.split(" ")[2])[4:]
    assert public == key.public
    assert is_signed(public, f"{body}\n".encode(), signature)
    assert not is_signed(public, f"{body} \n".encode(), signature)
    assert not is_signed(public, f"{body}\n".encode(), signature[:32] + bytes(32))
    assert not is_signed(AuditKey("other").public, f"{body}\n".encode(), signature)


def test_a_broken_export_is_a_red_line_not_a_crash(copy: Path) -> None:
    (copy / "prices.jsonl").write_text("")
    found = failures(copy)
    assert any("cannot be checked: the export lacks or twists KeyError" in line for line in found)


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085"])
def test_a_text_with_another_end_of_line_in_it_is_part_of_one_row(tmp_path: Path, mark: str) -> None:
    rows = [{"name": f"Pump{mark}works"}, {"name": "second"}]
    (tmp_path / "events.jsonl").write_bytes(b"".join(canonical(row) + b"\n" for row in rows))
    assert Export(tmp_path).rows("events") == rows


def _fits(annex: dict[str, Any], name: str) -> bool:
    if name == "orders":
        return bool(annex["charges"])
    if name == "quotes":
        return any(line["covers"] for line in annex["lines"][:1])
    return name != "rules" or annex["programme"]["code"] == "compute"

"""The exported books balance under other people's programs: hledger and beancount, with every balance asserted."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hub.audit.books import write_beancount, write_hledger
from tests.hub.audit.test_export import KEY, kept, whole
from tests.hub.audit.year import export, run_two_months, sign
from tests.hub.money.market import Market

__all__ = ["kept", "whole"]


def bean_check(path: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "bean-check"
    return subprocess.run([str(program), str(path)], capture_output=True, text=True, timeout=120)


def hledger(path: Path, *check: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("hledger")
    assert program is not None, "hledger is missing: apt-get install hledger (make setup-tests does)"
    return subprocess.run([program, "-f", str(path), "check", *check], capture_output=True, text=True, timeout=120)


def test_beancount_checks_the_books(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "books.beancount"
    assert write_beancount(whole, path) > 50
    checked = bean_check(path)
    assert (checked.returncode, checked.stderr + checked.stdout) == (0, "")
    text = path.read_text()
    assert text.count(" balance ") == text.count(" open ") > 15
    path.write_text(text.replace(" 2000.00 CNY", " 2000.01 CNY", 1))
    assert bean_check(path).returncode != 0


def test_hledger_checks_the_books_strictly(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "books.journal"
    assert write_hledger(whole, path) > 50
    checked = hledger(path, "-s", "ordereddates")
    assert (checked.returncode, checked.stderr) == (0, "")
    path.write_text(path.read_text().replace("  2000.00 CNY", "  2000.01 CNY", 1))
    assert hledger(path, "-s").returncode != 0


def test_a_month_alone_opens_with_its_balances(market: Market, tmp_path: Path) -> None:
    run_two_months(market)
    sign(market.sessions, KEY, tmp_path, market)
    place = export(market.sessions, KEY, tmp_path / "december.zip", ("2026-12", "2026-12"))
    write_beancount(place, tmp_path / "books.beancount")
    write_hledger(place, tmp_path / "books.journal")
    assert "opening balances" in (tmp_path / "books.beancount").read_text()
    assert bean_check(tmp_path / "books.beancount").returncode == 0
    assert hledger(tmp_path / "books.journal", "-s", "ordereddates").returncode == 0
    with pytest.raises(FileExistsError):
        write_hledger(place, tmp_path / "books.journal")

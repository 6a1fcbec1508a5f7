"""One table object, four formats: the same figures to the fen in CSV, XLSX and PDF, the same bytes each time."""

import base64
import csv
import io
import re
import zlib
from decimal import Decimal

import pytest
from openpyxl import load_workbook

from hub.reports.comma_separated import list_rows, write_csv
from hub.reports.paper import write_pdf
from hub.reports.service import statement
from hub.reports.sheet import Column, Kind, Sheet, Table, lay_out, show_yuan
from hub.reports.web_page import write_page
from hub.reports.workbook import write_xlsx
from tests.hub.money.market import Market


def lay(market: Market, language: str = "zh") -> Sheet:
    with market.sessions.read() as session:
        return lay_out(statement(session, market.owner("factory"), "2026-11"), language, {})


def list_amounts(table: Table) -> list[list[int]]:
    """The fen of each row, the total too."""
    money = [index for index, column in enumerate(table.columns) if column.kind is Kind.FEN]
    return [[int(cell) for index in money if (cell := row[index]) is not None] for row in list_rows(table)]


def test_the_sheet_adds_up(busy: Market) -> None:
    sheet = lay(busy)
    lines, parts = sheet.tables[0], sheet.tables[1]
    assert len(lines.rows) == len(lines.keys) == 4
    for row in lines.rows:
        assert int(row[4] or 0) == int(row[6] or 0) + int(row[7] or 0)
        assert int(row[4] or 0) == sum(int(part[3] or 0) for part in parts.rows if part[0] == row[0])
    assert lines.total is not None
    assert [sum(int(row[index] or 0) for row in lines.rows) for index in (4, 6, 7)] == [
        lines.total[index] for index in (4, 6, 7)
    ]
    assert any("不足一分结转" in str(row[3]) for row in lines.rows)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_csv_and_xlsx_say_the_same_as_the_sheet(busy: Market, language: str) -> None:
    sheet = lay(busy, language)
    wanted = [amount for table in sheet.tables for row in list_amounts(table) for amount in row]
    assert len(wanted) > 40
    rows = list(csv.reader(io.StringIO(write_csv(sheet).decode("utf-8-sig"))))
    assert (rows[0][0], rows[0][2]) == (sheet.title, sheet.ribbon)
    assert [cell for row in rows for cell in row if re.fullmatch(r"-?\d+\.\d\d", cell)] == [
        show_yuan(amount) for amount in wanted
    ]
    page = load_workbook(io.BytesIO(write_xlsx(sheet))).active
    assert page is not None
    cells = [cell for row in page.iter_rows() for cell in row if cell.number_format == "#,##0.00"]
    assert [round(Decimal(str(cell.value)) * 100) for cell in cells] == wanted


def test_pdf_holds_every_amount(busy: Market) -> None:
    sheet = lay(busy)
    text = read_pdf(write_pdf(sheet))
    for table in sheet.tables:
        for row in list_amounts(table):
            for amount in row:
                assert show_yuan(amount) in text
    assert "演示数据" in text
    assert sheet.title in text


def test_the_web_page_holds_every_amount_and_needs_no_other_file(busy: Market) -> None:
    sheet = lay(busy)
    text = write_page(sheet, "zh").decode()
    wanted = [show_yuan(amount) for table in sheet.tables for row in list_amounts(table) for amount in row]
    assert re.findall(r"<td class=figure>(-?\d+\.\d\d)<", text) == wanted
    assert "演示数据" in text
    assert '<html lang="zh">' in text
    assert re.search(r"(src|href)=|url\(|@import", text) is None


def test_the_web_page_shows_names_as_text() -> None:
    page = write_page(Sheet("t", "2026-11", False, "", [("<b>", "a&b")], [sample()], "n"), "en").decode()
    assert "<p>&lt;b&gt;: a&amp;b</p>" in page
    assert "<b>" not in page


def test_the_same_sheet_gives_the_same_bytes(busy: Market) -> None:
    sheet = lay(busy)
    for write in (write_csv, write_xlsx, write_pdf):
        assert write(sheet) == write(sheet)


def test_names_that_look_like_formulas_stay_text() -> None:
    heads = [("=HYPERLINK(1)", "+1"), ("a", "@b")]
    sheet = Sheet("t", "2026-11", False, "", heads, [Table("=x", [], [])], "n")
    assert "'=HYPERLINK(1)" in write_csv(sheet).decode()
    page = load_workbook(io.BytesIO(write_xlsx(sheet.__class__(**{**vars(sheet), "tables": [sample()]})))).active
    assert page is not None
    assert {cell.data_type for row in page.iter_rows() for cell in row if cell.value is not None} == {"s"}


def sample() -> Table:
    return Table("=1+1", [Column("=2", wide=True)], [["=3"]])


def read_pdf(content: bytes) -> str:
    """Return the text of a PDF set by us: its streams hold UCS-2 strings, each a run of one paragraph."""
    texts = []
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", content, re.DOTALL):
        raw = inflate(stream)
        for piece in re.findall(rb"\((.*?)(?<!\\)\) Tj", raw, re.DOTALL):
            texts.append(unescape(piece).decode("utf-16-be", errors="ignore"))
    return "".join(texts)


def inflate(stream: bytes) -> bytes:
    packed = base64.a85decode(b"<~" + stream.strip(), adobe=True)
    return zlib.decompress(packed)


def unescape(piece: bytes) -> bytes:
    """Return the bytes of a PDF string literal."""
    named = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}
    return re.sub(
        rb"\\([0-7]{3}|.)",
        lambda found: bytes([int(found[1], 8)]) if found[1].isdigit() else named.get(found[1], found[1]),
        piece,
        flags=re.DOTALL,
    )

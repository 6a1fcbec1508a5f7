"""Writes a sheet as XLSX, the same bytes for the same sheet. It leaves layout and figures to `sheet`."""

import io
import zipfile
from datetime import datetime
from decimal import Decimal

from openpyxl import Workbook
from openpyxl.styles import Alignment, Font
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.properties import PageSetupProperties
from openpyxl.worksheet.worksheet import Worksheet

from hub.reports.comma_separated import list_rows
from hub.reports.sheet import Cell, Column, Kind, Sheet, Table

_MADE_AT = datetime(1980, 1, 1)  # noqa: DTZ001  the earliest that a ZIP knows, which knows no zone
_BOLD = Font(bold=True)
FEN_FORMAT = "#,##0.00"
WIDTHS = {Kind.TEXT: 18, Kind.FEN: 16, Kind.COUNT: 6}


def write_xlsx(sheet: Sheet) -> bytes:
    """Return the sheet as a workbook of one worksheet; amounts are numbers in yuan, exact to the fen."""
    book = Workbook()
    page = book.active
    if not isinstance(page, Worksheet):
        raise TypeError("a new workbook has no worksheet")
    page.title = sheet.month
    page.append([sheet.title, sheet.month, sheet.ribbon])
    page.cell(1, 1).font = Font(bold=True, size=14)
    for head in sheet.heads:
        _append_text(page, list(head))
    for table in sheet.tables:
        _append_table(page, table)
    for index, column in enumerate(sheet.tables[0].columns, start=1):
        page.column_dimensions[get_column_letter(index)].width = 34 if column.wide else WIDTHS[column.kind]
    page.page_setup.orientation = "landscape"
    page.page_setup.fitToHeight = 0
    page.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    return _save(book)


def _append_table(page: Worksheet, table: Table) -> None:
    page.append([])
    _append_text(page, [table.title], bold=True)
    _append_text(page, [column.title for column in table.columns], bold=True)
    for row in list_rows(table):
        page.append([])
        number = page.max_row + 1
        for index, (cell, column) in enumerate(zip(row, table.columns, strict=True), start=1):
            _write_cell(page, number, index, cell, column, bold=row is table.total)


def _write_cell(page: Worksheet, row: int, index: int, cell: Cell, column: Column, *, bold: bool) -> None:
    place = page.cell(row, index)
    if column.kind is Kind.FEN and isinstance(cell, int):
        place.value, place.number_format = Decimal(cell).scaleb(-2), FEN_FORMAT
    else:
        place.value = cell
        if isinstance(cell, str):
            place.data_type = "s"  # text stays text, even where it starts like a formula
    place.alignment = Alignment(wrap_text=column.wide, vertical="top")
    if bold:
        place.font = _BOLD


def _append_text(page: Worksheet, texts: list[str], *, bold: bool = False) -> None:
    number = page.max_row + 1
    for index, text in enumerate(texts, start=1):
        place = page.cell(number, index, text)
        place.data_type = "s"
        if bold:
            place.font = _BOLD


def _save(book: Workbook) -> bytes:
    """Return the workbook with every time in it fixed: equal sheets give equal bytes."""
    book.properties.created = book.properties.modified = _MADE_AT
    raw, out = io.BytesIO(), io.BytesIO()
    book.save(raw)
    with zipfile.ZipFile(raw) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "docProps/core.xml":
                content = _fix_time(content)
            target.writestr(zipfile.ZipInfo(name, _MADE_AT.timetuple()[:6]), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _fix_time(core: bytes) -> bytes:
    """Put back the fixed time that saving replaces by the clock's."""
    opening, closing = b'<dcterms:modified xsi:type="dcterms:W3CDTF">', b"</dcterms:modified>"
    before, _, rest = core.partition(opening)
    _, _, after = rest.partition(closing)
    return before + opening + b"1980-01-01T00:00:00Z" + closing + after

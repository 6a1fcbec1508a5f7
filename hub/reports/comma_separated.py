"""Writes a sheet as CSV. It leaves layout and figures to `sheet`."""

import csv
import io

from hub.reports.sheet import Cell, Column, Kind, Sheet, Table, show_yuan


def write_csv(sheet: Sheet) -> bytes:
    """Return the sheet as CSV in UTF-8 with a byte order mark, so that spreadsheets read the Chinese."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([sheet.title, sheet.month, sheet.ribbon])
    for head in sheet.heads:
        writer.writerow([guard_cell(text) for text in head])
    for table in sheet.tables:
        writer.writerow([])
        writer.writerow([table.title])
        writer.writerow([column.title for column in table.columns])
        for row in list_rows(table):
            writer.writerow([show_cell(cell, column) for cell, column in zip(row, table.columns, strict=True)])
    return ("\ufeff" + out.getvalue()).encode()


def list_rows(table: Table) -> list[list[Cell]]:
    """Return the rows of a table with its total, where it has one."""
    return table.rows + ([table.total] if table.total and table.rows else [])


def show_cell(cell: Cell, column: Column) -> str:
    """Return a cell as text: fen as yuan, nothing as nothing."""
    if cell is None:
        return ""
    if column.kind is Kind.FEN and isinstance(cell, int):
        return show_yuan(cell)
    return guard_cell(str(cell))


def guard_cell(text: str) -> str:
    """Return a text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text

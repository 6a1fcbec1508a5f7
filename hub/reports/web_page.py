"""Writes a sheet as one web page that needs no other file and prints as it looks.

It leaves layout and figures to `sheet`; the marketplace's own page of a statement stands in `marketplace_ui`.
"""

from html import escape

from hub.reports.comma_separated import list_rows, show_cell
from hub.reports.sheet import Cell, Kind, Sheet, Table

STYLE = """
body { font: 14px/1.5 sans-serif; margin: 2rem; color: #101828; }
table { border-collapse: collapse; width: 100%; margin-bottom: 1.5rem; }
th, td { border-bottom: 1px solid #c8d0da; padding: 4px 8px; text-align: left; vertical-align: top; }
th { background: #f1f4f8; }
.figure { text-align: right; white-space: nowrap; }
.total td { font-weight: bold; }
.ribbon { background: #b42318; color: white; text-align: center; padding: 4px; }
@media print { body { margin: 0; } tr { break-inside: avoid; } }
"""


def write_page(sheet: Sheet, language: str) -> bytes:
    """Return the sheet as a web page in UTF-8; `language` is that of the sheet, `zh` or `en`."""
    title = escape(f"{sheet.title} {sheet.month}")
    parts = [
        f'<!doctype html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">',
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
        f'<p class="ribbon">{escape(sheet.ribbon)}</p>' if sheet.ribbon else "",
        f"<h1>{title}</h1>",
        *(f"<p>{escape(label)}: {escape(text)}</p>" for label, text in sheet.heads),
        *(_write_table(table) for table in sheet.tables),
        "</body>\n</html>\n",
    ]
    return "\n".join(part for part in parts if part).encode()


def _write_table(table: Table) -> str:
    heads = "".join(f"<th{_mark(column.kind)} scope=col>{escape(column.title)}</th>" for column in table.columns)
    rows = [_write_row(row, table, is_total=row is table.total) for row in list_rows(table)]
    return "\n".join([f"<h2>{escape(table.title)}</h2>\n<table>\n<tr>{heads}</tr>", *rows, "</table>"])


def _write_row(row: list[Cell], table: Table, *, is_total: bool) -> str:
    cells = "".join(
        f"<td{_mark(column.kind)}>{escape(show_cell(cell, column))}</td>"
        for cell, column in zip(row, table.columns, strict=True)
    )
    return f"<tr{' class=total' if is_total else ''}>{cells}</tr>"


def _mark(kind: Kind) -> str:
    return "" if kind is Kind.TEXT else " class=figure"

"""Writes a sheet as PDF on A4 across, the same bytes for the same sheet. It leaves layout and figures to `sheet`.

The Chinese is set in STSong-Light, which every PDF reader brings or replaces: no font is shipped.
"""

import io
from xml.sax.saxutils import escape

from reportlab.lib.colors import HexColor, white
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4, landscape
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, TableStyle
from reportlab.platypus import Table as PaperTable

from hub.reports.comma_separated import list_rows, show_cell
from hub.reports.sheet import Cell, Column, Kind, Sheet, Table

FONT = "STSong-Light"
MARGIN = 36
WIDTH = landscape(A4)[0] - 2 * MARGIN
SHARES = {Kind.TEXT: 12, Kind.FEN: 10, Kind.COUNT: 4}
WIDE = 22
GREY, LINE, RED = HexColor("#f1f4f8"), HexColor("#c8d0da"), HexColor("#b42318")


def write_pdf(sheet: Sheet) -> bytes:
    """Return the sheet as a PDF, every page with its number and, for the demonstration, its ribbon."""
    pdfmetrics.registerFont(UnicodeCIDFont(FONT))
    out = io.BytesIO()
    paper = SimpleDocTemplate(
        out,
        pagesize=landscape(A4),
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=MARGIN + 8,
        bottomMargin=MARGIN,
        title=f"{sheet.title} {sheet.month}",
        invariant=1,
    )

    def mark(canvas: Canvas, _paper: object) -> None:
        _mark_page(canvas, sheet)

    paper.build(_list_content(sheet), onFirstPage=mark, onLaterPages=mark)
    return out.getvalue()


def _list_content(sheet: Sheet) -> list[Flowable]:
    head = _style(16, leading=22)
    content: list[Flowable] = [Paragraph(escape(f"{sheet.title} {sheet.month}"), head)]
    content += [Paragraph(escape(f"{label}: {text}"), _style(9)) for label, text in sheet.heads]
    for table in sheet.tables:
        content += [Spacer(1, 10), Paragraph(escape(table.title), _style(11, leading=16)), _set_table(table)]
    return content


def _set_table(table: Table) -> Flowable:
    heads = [Paragraph(escape(column.title), _cell_style(column)) for column in table.columns]
    rows = [
        [
            Paragraph(escape(show_cell(cell, column)), _cell_style(column))
            for cell, column in zip(row, columns, strict=True)
        ]
        for columns in (table.columns,)
        for row in list_rows(table)
    ]
    shares = [WIDE if column.wide else SHARES[column.kind] for column in table.columns]
    widths = [WIDTH * share / sum(shares) for share in shares]
    placed = PaperTable([heads, *rows], colWidths=widths, repeatRows=1)
    placed.setStyle(
        TableStyle(
            [
                ("BACKGROUND", (0, 0), (-1, 0), GREY),
                ("LINEBELOW", (0, 0), (-1, -1), 0.4, LINE),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("TOPPADDING", (0, 0), (-1, -1), 2),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
            ]
        )
    )
    return placed


def _set_cell(cell: Cell, column: Column) -> Flowable:
    return Paragraph(escape(show_cell(cell, column)), _cell_style(column))


def _cell_style(column: Column) -> ParagraphStyle:
    style = _style(8)
    if column.kind is not Kind.TEXT:
        style.alignment = TA_RIGHT
    return style


def _style(size: int, *, leading: int | None = None) -> ParagraphStyle:
    return ParagraphStyle(f"s{size}", fontName=FONT, fontSize=size, leading=leading or size + 3, wordWrap="CJK")


def _mark_page(canvas: Canvas, sheet: Sheet) -> None:
    canvas.setFont(FONT, 8)
    width, height = landscape(A4)
    canvas.drawRightString(width - MARGIN, MARGIN - 14, f"{sheet.name} · {canvas.getPageNumber()}")
    if sheet.ribbon:
        canvas.setFillColor(RED)
        canvas.rect(0, height - 20, width, 20, stroke=0, fill=1)
        canvas.setFillColor(white)
        canvas.drawCentredString(width / 2, height - 14, sheet.ribbon)

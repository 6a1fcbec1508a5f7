"""A small sample data set in each format, so that people see the form of a file before they write their own.

It leaves larger samples to the demonstration, which puts them in `<home>/samples`.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping

from finetune.spec import SourceFormat

HEADER = ("设备编号", "问题描述", "处理措施")
_UNITS = ("CNC-01", "CNC-02", "注塑机-03", "冲床-04", "空压机-05", "输送线-06")
_FAULTS = (
    ("主轴高速时有周期性异响", "停机挂牌，检查主轴轴承间隙与润滑，间隙超差时更换轴承并试车 30 分钟"),
    ("液压站油温报警", "检查冷却水阀与散热片，清洗滤芯，油位低于下限时补油"),
    ("伺服电机过载停机", "检查导轨润滑与负载，复位驱动器后点动运行，确认电流正常"),
    ("气压不足，夹具夹不紧", "检查管路漏气与减压阀，更换老化气管，恢复到 0.6 MPa"),
)


def write_sample(source_format: SourceFormat) -> bytes:
    """Return the sample as a file; the same bytes every time for JSON lines and CSV."""
    return _WRITERS[source_format]()


def list_sample_rows() -> Iterator[tuple[str, str, str]]:
    """Yield (asset, question, answer)."""
    for unit in _UNITS:
        for fault, act in _FAULTS:
            yield unit, f"{unit} {fault}，应如何处理？", f"{act}。"


def _write_lines() -> bytes:
    lines = []
    for unit, question, answer in list_sample_rows():
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": messages, "asset": unit}, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def _write_csv() -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([HEADER, *list_sample_rows()])
    return text.getvalue().encode("utf-8-sig")


def _write_workbook() -> bytes:
    from openpyxl import Workbook

    book = Workbook()
    sheet = book.worksheets[0]
    for row in (HEADER, *list_sample_rows()):
        sheet.append(list(row))
    target = io.BytesIO()
    book.save(target)
    return target.getvalue()


_WRITERS: Mapping[SourceFormat, Callable[[], bytes]] = {
    SourceFormat.JSONL: _write_lines,
    SourceFormat.CSV: _write_csv,
    SourceFormat.XLSX: _write_workbook,
}

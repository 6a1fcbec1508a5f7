"""How fast and how lean a data check is: `python -m benchmarks.datasets [--rows N]` prints rows/s and peak memory.

It leaves what a check finds to the tests. Each file is checked by the real trainer process, whose own peak is read.
"""

import argparse
import csv
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from finetune.spec import Data, Kind, RunSpec, SourceFormat

ROOT = Path(__file__).parents[1]
MOST_BYTES = 1 << 30
_PARTS = ("主轴", "齿轮箱", "液压泵", "伺服电机", "冷却塔", "输送带", "刀库", "导轨")
_SIGNS = ("异响", "漏油", "温度过高", "振动超标", "无法启动", "压力不足", "报警停机", "精度下降")


def list_rows(count: int) -> Iterator[tuple[str, str, str]]:
    """Yield (asset, question, answer): mostly sound rows, some repeated, some nearly so, some private."""
    rng = random.Random(7)
    for number in range(count):
        part, sign = rng.choice(_PARTS), rng.choice(_SIGNS)
        asset = f"CNC-{number % 5000:04d}"
        question = f"{asset} {part}{sign}，{rng.randint(1, 99)} 号工位，运行 {number} 小时后出现，现场如何处理？"
        answer = f"先停机挂牌，检查{part}的紧固与润滑，{sign}时更换 {rng.randint(1, 40)} 号备件并记录到点检表。"
        if number % 500 == 499:
            question = f"{question} 联系 138{rng.randint(10**7, 10**8 - 1)}"
        if number % 300 == 299:
            answer = ""
        yield asset, question, answer


def write_file(path: Path, count: int) -> None:
    """Write the rows in the format of the file's name."""
    rows = list_rows(count)
    if path.suffix == ".xlsx":
        _write_workbook(path, rows)
        return
    with path.open("w", encoding="utf-8", newline="") as stream:
        if path.suffix == ".csv":
            csv.writer(stream).writerows([("设备编号", "问题", "答案"), *rows])
            return
        for asset, question, answer in rows:
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            stream.write(json.dumps({"asset": asset, "messages": messages}, ensure_ascii=False) + "\n")


def _write_workbook(path: Path, rows: Iterator[tuple[str, str, str]]) -> None:
    """With the asset merged over every four rows, as factories write it."""
    import openpyxl

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("rows")
    sheet.append(["设备编号", "问题", "答案"])
    count = 0
    for count, row in enumerate(rows, start=1):
        sheet.append([row[0] if count % 4 == 1 else None, *row[1:]])
    plain = path.with_suffix(".plain.xlsx")
    book.save(plain)
    # openpyxl compares each merged range with all others, so they are put into the part directly
    ranges = "".join(f'<mergeCell ref="A{at}:A{at + 3}"/>' for at in range(2, count - 2, 4))
    merged = f'</sheetData><mergeCells count="{ranges.count("ref")}">{ranges}</mergeCells>'.encode()
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for part in source.infolist():
            content = source.read(part)
            if part.filename == "xl/worksheets/sheet1.xml":
                content = content.replace(b"</sheetData>", merged)
            target.writestr(part.filename, content)
    plain.unlink()


def measure(path: Path, rows: int, folder: Path) -> dict[str, object]:
    """Check one file in its own process."""
    spec = RunSpec(kind=Kind.CHECK, run_id="bench", data=Data(str(path), SourceFormat(path.suffix[1:])))
    out = folder / f"out-{path.suffix[1:]}"
    figures = run_trainer(spec, out, rows=rows)
    summary = json.loads((out / "report.json").read_text(encoding="utf-8"))["summary"]
    return {
        "format": path.suffix[1:],
        "size_mb": round(path.stat().st_size / 1e6, 1),
        **figures,
        "findings": summary["findings"],
        "train_rows": summary["train_rows"],
    }


def run_trainer(spec: RunSpec, out: Path, *, rows: int) -> dict[str, object]:
    """Run the real trainer in its own process; peak memory in MiB is that process's own maximum."""
    spec_path = out.with_suffix(".json")
    spec_path.write_text(spec.to_json(), encoding="utf-8")
    started_s = time.monotonic()
    command = [sys.executable, "-m", "finetune", str(spec_path), str(out)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.monotonic() - started_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"kind={spec.kind} of {rows} rows ended with {process.returncode}")
    return {
        "rows": rows,
        "wall_s": round(wall_s, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "rows_per_s": round(rows / wall_s),
        "peak_mib": usage.ru_maxrss // 1024,
        "within_1_gib": usage.ru_maxrss * 1024 <= MOST_BYTES,
    }


def main() -> int:
    """Print one line per file and one JSON object last; exit 1 if a check needed more than 1 GiB."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=1_000_000, help="rows of the JSONL and CSV files")
    options.add_argument("--sheet-rows", type=int, default=100_000, help="rows of the workbook")
    chosen = options.parse_args()
    found = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        for suffix, rows in (("jsonl", chosen.rows), ("csv", chosen.rows), ("xlsx", chosen.sheet_rows)):
            path = folder / f"rows.{suffix}"
            write_file(path, rows)
            found.append(measure(path, rows, folder))
            print(found[-1], flush=True)
            path.unlink()
    load = os.getloadavg()
    print(json.dumps({"checks": found, "cores": os.cpu_count(), "load": load, "python": platform.python_version()}))
    return 0 if all(one["within_1_gib"] for one in found) else 1


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())

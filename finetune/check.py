"""kind=check: a raw upload becomes a report by line and, without errors, normalised training and validation files.

Leaves token lengths to plan. Imports neither torch nor transformers: a check answers within a second.
"""

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from pathlib import Path

from finetune.chats import ChatRow, build_chats
from finetune.codec import Json, encode
from finetune.errors import DataError
from finetune.files import digest_file, format_json, write_atomic
from finetune.issues import IssueLog, Severity
from finetune.job import Job
from finetune.rules import check_count, check_rows, remove_duplicates
from finetune.sources import read_source
from finetune.spec import ColumnRole, Data, Event, Fault, Result, SourceFormat, State
from finetune.split import remove_overlap, split_rows


def check_source(job: Job) -> Result:
    """Write OUT/report.json, and train.jsonl and valid.jsonl if there is no error.

    `data.source` is split; with `data.valid` given (a raw upload of the same format) that file is held out instead.
    """
    spec, log = job.spec, job.log
    source = _find_source(spec.data)
    issues, valid_issues = IssueLog("train"), IssueLog("valid")
    log.write(Event.STAGE, {"stage": "reading"})
    rows, mapping = _read_rows(source, spec.data, issues)
    job.stop.raise_pending()
    log.write(Event.STAGE, {"stage": "checking", "rows": len(rows)})
    if spec.data.valid is None:
        train, valid = split_rows(rows, spec.seed, issues) if rows else ([], [])
    else:
        valid, _ = _read_rows(Path(spec.data.valid), spec.data, valid_issues)
        train = remove_overlap(rows, valid, issues)
        if not valid:
            valid_issues.add("file_empty")
    check_count(len(train) + (len(valid) if spec.data.valid is None else 0), issues)
    return _write(job, train=train, valid=valid, logs=(issues, valid_issues), mapping=mapping)


def _find_source(data: Data) -> Path:
    path = Path(data.source or "")
    if not path.is_file():
        raise DataError("file_missing", f"data.source {path.name} does not exist; upload the file again.")
    wanted = data.digests.get("source")
    if wanted is not None and digest_file(path) != wanted:
        raise DataError("data_changed", f"data.source differs from its digest {wanted}; upload the file again.")
    return path


def _read_rows(path: Path, data: Data, issues: IssueLog) -> tuple[list[ChatRow], dict[str, ColumnRole]]:
    read = read_source(path, data.format or SourceFormat.JSONL, issues)
    if not read and issues.count(Severity.ERROR) == 0:
        issues.add("file_empty")
    chats, mapping = build_chats(read, data.mapping, issues)
    rows = remove_duplicates(chats, issues)
    check_rows(rows, issues)
    return rows, mapping


def _write(
    job: Job,
    *,
    train: Sequence[ChatRow],
    valid: Sequence[ChatRow],
    logs: tuple[IssueLog, IssueLog],
    mapping: dict[str, ColumnRole],
) -> Result:
    errors, warnings, fixed = (
        sum(issues.count(severity) for issues in logs)
        for severity in (Severity.ERROR, Severity.WARNING, Severity.FIXED)
    )
    digests: dict[str, str] = {}
    if errors == 0:
        for name, rows in (("train.jsonl", train), ("valid.jsonl", valid)):
            digests[name] = write_atomic(job.out / name, "".join(_format_row(row) for row in rows))
    summary: dict[str, Json] = {
        "ok": errors == 0,
        "errors": errors,
        "warnings": warnings,
        "fixed": fixed,
        "train_rows": len(train),
        "valid_rows": len(valid),
        "format": str(job.spec.data.format),
        "mapping": encode(mapping),
    }
    report: Json = {"summary": summary, "issues": [issue for issues in logs for issue in issues.describe()]}
    digests["report.json"] = write_atomic(job.out / "report.json", format_json(report))
    return job.close(
        State.SUCCEEDED if errors == 0 else State.FAILED,
        reason_code="done" if errors == 0 else "data_invalid",
        fault=Fault.NONE if errors == 0 else Fault.USER,
        message="" if errors == 0 else f"{errors} kinds of errors in the data; report.json lists them by row.",
        metrics=summary,
        digests=digests,
        versions={"python": platform.python_version(), "openpyxl": importlib.metadata.version("openpyxl")},
    )


def _format_row(row: ChatRow) -> str:
    messages = [{"role": role, "content": content} for role, content in row.messages]
    return json.dumps({"messages": messages}, ensure_ascii=False) + "\n"

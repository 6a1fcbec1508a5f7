"""kind=check: a raw upload becomes a report by line and, without errors, normalised training and validation files.

Leaves the look at tokens to `finetune.preview`. Imports neither torch nor transformers. Rows stream through: memory
holds numbers of each row, never its text.
"""

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.annotate import write_annotated, write_findings
from finetune.chats import ChatReader
from finetune.codec import Json, encode
from finetune.errors import DataError
from finetune.files import digest_file, format_json, sync_folder, write_atomic
from finetune.issues import IssueLog, Spool
from finetune.job import Job
from finetune.kinds_of_files import Severity
from finetune.row_facts import RowFacts
from finetune.rules import check_count, keep_rows
from finetune.sources import Upload, open_upload, read_rows
from finetune.spec import ColumnRole, Data, Event, Fault, Result, SourceFormat, State
from finetune.split import Split, check_groups, check_near_overlap, describe_split, remove_overlap, split_rows

_LOOK_EVERY_ROWS = 20_000
_MOST_COLUMNS, _MOST_NAME_CHARS = 200, 200


@dataclass
class Reading:
    """One upload as read: its rows, what was found, which of them stay."""

    issues: IssueLog
    facts: RowFacts
    upload: Upload | None = None
    mapping: Mapping[str, ColumnRole] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    kept: Any = None
    rows_read: int = 0


def check_source(job: Job) -> Result:
    """Write OUT/report.json, findings.jsonl, an annotated copy, and the checked files if there is no error.

    `data.source` is split; with `data.valid` given (a raw upload of the same format) that file is held out instead.
    Without a source, the checked rows of the spec are shown as tokens of its base.
    """
    spec = job.spec
    if spec.data.source is None:
        from finetune.preview import preview_tokens

        return preview_tokens(job)
    source = _find_source(spec.data)
    with ExitStack() as stack:
        spool = Spool(job.out / ".findings.tmp")
        stack.callback(spool.close)
        train = _open(job, "train", spool, stack)
        _read(job, source, train)
        if spec.data.valid is None:
            split = split_rows(train.facts, train.kept, spec.seed, train.issues)
            parts, held = [train], (train, split.valid)
        else:
            valid = _open(job, "valid", spool, stack)
            _read(job, Path(spec.data.valid), valid)
            if valid.rows_read and not valid.kept.any() and not valid.issues.count(Severity.ERROR):
                valid.issues.add("no_valid_rows")
            groups = valid.facts.groups[valid.kept] if valid.facts.has_groups else ()
            learned = check_groups(train.facts, train.kept, groups, train.issues)
            learned = remove_overlap(train.facts, learned, valid.facts.prompts[valid.kept], train.issues)
            learned = check_near_overlap(train.facts, learned, train.issues, valid=valid.facts, held=valid.kept)
            split = Split(learned, valid.kept, "file")
            parts, held = [train, valid], (valid, valid.kept)
        usable = int(split.train.sum()) + (int(split.valid.sum()) if len(parts) == 1 else 0)
        check_count(usable, train.issues)
        for part in parts:
            part.issues.settle()
        job.log.write(Event.STAGE, {"stage": "writing"})
        digests = write_findings(job.out, spool)
        if train.upload is not None:
            digests |= write_annotated(job.out, train.upload)
        if not _count(parts, Severity.ERROR):
            digests |= _write_rows(job.out, "train", train.facts, split.train)
            digests |= _write_rows(job.out, "valid", held[0].facts, held[1])
        return _write_report(job, parts, split, digests)


def _find_source(data: Data) -> Path:
    path = Path(data.source or "")
    if not path.is_file():
        raise DataError("file_missing", f"data.source {path.name} does not exist; upload the file again.")
    wanted = data.digests.get("source")
    if wanted is not None and digest_file(path) != wanted:
        raise DataError("data_changed", f"data.source differs from its digest {wanted}; upload the file again.")
    return path


def _open(job: Job, name: str, spool: Spool, stack: ExitStack) -> Reading:
    facts = RowFacts(job.out / f".{name}.rows.tmp")
    stack.callback(facts.close)
    return Reading(IssueLog(name, fixes=job.spec.data.fixes, spool=spool), facts)


def _read(job: Job, path: Path, reading: Reading) -> None:
    job.log.write(Event.STAGE, {"stage": "reading"})
    issues, facts = reading.issues, reading.facts
    reading.upload = open_upload(path, job.spec.data.format or SourceFormat.JSONL, issues)
    reader = ChatReader(job.spec.data.mapping, issues)
    if reading.upload is not None:
        for row in read_rows(reading.upload, issues):
            reading.rows_read += 1
            if reading.rows_read == 1:
                names = [name for name in row.cells if len(name) <= _MOST_NAME_CHARS]
                reading.columns = tuple(names[:_MOST_COLUMNS])
            if reading.rows_read % _LOOK_EVERY_ROWS == 0:
                job.stop.raise_pending()
                job.log.write(Event.STAGE, {"stage": "reading", "rows": reading.rows_read})
            chat = reader.read(row)
            if chat is not None:
                facts.add(chat)
        reader.finish()
    if not reading.rows_read and issues.count(Severity.ERROR) == 0:
        issues.add("file_empty")
    reading.mapping = reader.mapping
    job.log.write(Event.STAGE, {"stage": "checking", "rows": reading.rows_read})
    reading.kept = keep_rows(facts, issues)


def _write_rows(out: Path, name: str, facts: RowFacts, chosen: Any) -> dict[str, str]:
    """NAME.jsonl, and NAME.rows.bin: the customer's row number of each line as little-endian uint32."""
    import numpy

    content = (line for line, is_chosen in zip(facts.read_lines(), chosen.tolist(), strict=True) if is_chosen)
    numbers = numpy.array(facts.numbers, dtype="<u4")[chosen].tobytes()
    return {
        f"{name}.jsonl": _write_stream(out / f"{name}.jsonl", content),
        f"{name}.rows.bin": _write_stream(out / f"{name}.rows.bin", [numbers]),
    }


def _write_stream(path: Path, content: Iterable[bytes]) -> str:
    """Write like `write_atomic`, piece by piece; returns the sha256."""
    partial = path.with_name(f".{path.name}.tmp")
    found = hashlib.sha256()
    with partial.open("wb") as stream:
        for piece in content:
            found.update(piece)
            stream.write(piece)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    sync_folder(path.parent)
    return found.hexdigest()


def _count(parts: list[Reading], severity: Severity) -> int:
    return sum(part.issues.count(severity) for part in parts)


def _write_report(job: Job, parts: list[Reading], split: Split, digests: dict[str, str]) -> Result:
    train = parts[0]
    errors = _count(parts, Severity.ERROR)
    group = next((name for name, role in train.mapping.items() if role is ColumnRole.GROUP), None)
    summary: dict[str, Json] = {
        "ok": errors == 0,
        "errors": errors,
        "warnings": _count(parts, Severity.WARNING),
        "fixed": _count(parts, Severity.FIXED),
        "findings": sum(part.issues.count_findings() for part in parts),
        "rows": train.rows_read,
        "train_rows": int(split.train.sum()),
        "valid_rows": int(split.valid.sum()),
        "format": str(job.spec.data.format),
        "columns": [*train.columns],
        "mapping": encode(train.mapping),
        "split": encode(describe_split(split, group)),
        "fixes": encode(job.spec.data.fixes),
    }
    report: Json = {"summary": summary, "issues": [issue for part in parts for issue in part.issues.describe()]}
    digests["report.json"] = write_atomic(job.out / "report.json", format_json(report))
    return job.close(
        State.SUCCEEDED if errors == 0 else State.FAILED,
        reason_code="done" if errors == 0 else "data_invalid",
        fault=Fault.NONE if errors == 0 else Fault.USER,
        message="" if errors == 0 else f"{errors} kinds of errors in the data; report.json lists them by row.",
        metrics=_choose_figures(summary),
        digests=digests,
        versions={"python": platform.python_version(), "openpyxl": importlib.metadata.version("openpyxl")},
    )


def _choose_figures(summary: Mapping[str, Json]) -> dict[str, Json]:
    """Counts only: the result is mirrored to places where names of columns have no business."""
    return {name: value for name, value in summary.items() if isinstance(value, bool | int)}

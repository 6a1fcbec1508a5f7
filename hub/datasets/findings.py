"""What a check found, row by row, read a page at a time from the file that the check wrote in the owner's folder.

It leaves counts and messages by code to the report in the database, which holds nothing of any row.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from finetune.spec import SourceFormat
from hub.datasets.service import locate_checked, not_ready
from hub.datasets.tables import DatasetState, DatasetVersion
from hub.errors import NotFoundError

FINDINGS_NAME = "findings.jsonl"
MOST_OF_A_PAGE = 500


@dataclass(frozen=True)
class Page:
    """Findings by row; `cursor` continues after them, None at the end."""

    findings: list[dict[str, Any]]
    cursor: int | None


def read_findings(
    home: Path, version: DatasetVersion, *, code: str | None, severity: str | None, cursor: int, limit: int
) -> Page:
    """Return findings of a code or severity after `cursor`, a place in the file.

    Raises:
        DatasetNotReadyError: not checked yet, or deleted.
    """
    path = _locate(home, version, FINDINGS_NAME)
    if not path.is_file():
        return Page([], None)
    wanted = [f'"{name}": "{value}"'.encode() for name, value in (("code", code), ("severity", severity)) if value]
    found: list[dict[str, Any]] = []
    with path.open("rb") as stream:
        if cursor > 0:
            stream.seek(cursor - 1)
            stream.readline()  # a place that is no start of a line moves on to the next one
        for line in _read_matching(stream, wanted):
            if len(found) == min(limit, MOST_OF_A_PAGE):
                return Page(found, stream.tell() - len(line))
            one = json.loads(line)
            if code in (None, one["code"]) and severity in (None, one["severity"]):
                found.append(one)
    return Page(found, None)


def find_annotated(home: Path, version: DatasetVersion) -> Path:
    """Return the copy of the upload with a column of findings.

    Raises:
        DatasetNotReadyError: not checked yet, or deleted.
        NotFoundError: the check found nothing in any row, so there is no copy.
    """
    path = _locate(home, version, f"annotated.{SourceFormat(version.format)}")
    if not path.is_file():
        raise NotFoundError(
            "The check found nothing in any row, so there is no annotated copy. Download your own file instead.",
            "检查没有在任何一行发现问题，因此没有标注文件。",
            field="dataset_id",
        )
    return path


def _locate(home: Path, version: DatasetVersion, name: str) -> Path:
    if version.state in (DatasetState.CHECKING, DatasetState.DELETED, DatasetState.FAILED):
        raise not_ready(version)
    return locate_checked(home, version) / name


def _read_matching(stream: BinaryIO, wanted: list[bytes]) -> Iterator[bytes]:
    """Lines that may match: most are passed over without being parsed."""
    while line := stream.readline():
        if all(text in line for text in wanted):
            yield line

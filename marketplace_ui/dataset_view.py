"""What the page of a data set shows beside its report: first rows, tokens as trained, columns that can be mapped.

It leaves findings to `hub.datasets.findings`. Nothing of it is kept: rows are read from the owner's folder each time.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy.orm import Session

from finetune.spec import ColumnRole
from hub.actor import Actor
from hub.datasets.files import locate_source
from hub.datasets.service import list_datasets, locate_checked
from hub.datasets.tables import DatasetState, DatasetVersion
from hub.web import context
from marketplace_ui.columns import MAX_COLUMNS, read_columns
from marketplace_ui.forms import Form
from marketplace_ui.journey_words import word_of

SEVERITIES = ("E", "W", "F", "I")
SAMPLE_ROWS = 3
_CHAT_LISTS = ("messages", "conversations")


@dataclass(frozen=True)
class IssueGroup:
    """Findings of one severity: E, W, F or I."""

    severity: str
    issues: list[Mapping[str, Any]]


def group_issues(report: Mapping[str, Any] | None) -> list[IssueGroup]:
    """Return the report's findings by severity, worst first."""
    found = (report or {}).get("issues", [])
    groups = [IssueGroup(letter, [one for one in found if one["severity"] == letter]) for letter in SEVERITIES]
    return [group for group in groups if group.issues]


def list_offered_fixes(report: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the advised correction of every error and warning that offers one: code to action."""
    found = (report or {}).get("issues", [])
    return {
        issue["code"]: issue["fix"]["offers"][0]
        for issue in found
        if issue["severity"] in ("E", "W") and issue["fix"] and issue["fix"]["offers"]
    }


def list_columns(version: DatasetVersion) -> list[str]:
    """Return the columns that a person may map; of chat rows only what stands beside the messages."""
    if version.state in (DatasetState.CHECKING, DatasetState.DELETED):
        return []
    known = (version.report or {}).get("summary", {}).get("columns")
    if known is None:
        path = locate_source(context().settings.home, version.organisation_id, version.source_digest, version.format)
        known = read_columns(path, version.format)
    return [name for name in known if name not in _CHAT_LISTS][:MAX_COLUMNS]


def is_chat(version: DatasetVersion) -> bool:
    """Return whether the rows are lists of messages."""
    columns = (version.report or {}).get("summary", {}).get("columns", [])
    return any(name in _CHAT_LISTS for name in columns)


def fill_mapping(columns: list[str], version: DatasetVersion) -> dict[str, str]:
    """Return the form's choices: what was asked for, else what was recognised."""
    known = version.mapping or (version.report or {}).get("summary", {}).get("mapping", {})
    return {f"column-{index}": known.get(name, "") for index, name in enumerate(columns)}


def read_mapping(form: Form, columns: list[str], *, chat: bool) -> dict[str, ColumnRole] | None:
    """Return column to role as chosen; None and a refusal without a question, or with another count of answers."""
    chosen = {name: form.value(f"column-{index}") for index, name in enumerate(columns)}
    mapping = {name: ColumnRole(role) for name, role in chosen.items() if role in list(ColumnRole)}
    roles = list(mapping.values())
    if not chat and ColumnRole.PROMPT not in roles:
        word = word_of("column", ColumnRole.PROMPT)
        form.refuse("", f"“{word}”至少指定一列。", f"'{word}' must be at least one column.")
    for role in (ColumnRole.COMPLETION, ColumnRole.GROUP, ColumnRole.SPLIT):
        least = 1 if role is ColumnRole.COMPLETION and not chat else 0
        count, word = roles.count(role), word_of("column", role)
        if not least <= count <= 1:
            form.refuse(
                "",
                f"“{word}”须恰好指定一列，现为 {count} 列。",
                f"'{word}' must be exactly one column; now there are {count}.",
            )
    return mapping if form.ok else None


def list_others(session: Session, actor: Actor, version: DatasetVersion) -> list[tuple[str, str]]:
    """Return id and name of the data sets that may be held out for a version: of its format, with other bytes."""
    return [
        (dataset.id, f"{dataset.name} ({other.file_name})")
        for dataset, other in list_datasets(session, actor)
        if other.format is version.format and other.source_digest != version.source_digest
    ]


def read_samples(version: DatasetVersion) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the part and the messages of the first checked rows, which only their owner ever sees."""
    if version.checked_folder is None or version.state is DatasetState.DELETED:
        return []
    folder = locate_checked(context().settings.home, version)
    found = []
    for part in ("train", "valid"):
        path = folder / f"{part}.jsonl"
        if path.is_file():
            with path.open(encoding="utf-8") as stream:
                found += [(part, json.loads(line)["messages"]) for line in islice(stream, SAMPLE_ROWS)]
    return found

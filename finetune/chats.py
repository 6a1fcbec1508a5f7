"""Source rows to chat rows: messages of system, user and assistant in a learnable order.

Leaves rules across rows (duplicates, contradictions) to `finetune.rules`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune.codec import Json
from finetune.columns import resolve_mapping
from finetune.issues import IssueLog
from finetune.sources import SourceRow
from finetune.spec import ColumnRole

_ROLES = ("system", "user", "assistant")
_SPLIT_FIELD = "split"
_HELD_OUT = {"": False, "train": False, "训练": False, "valid": True, "validation": True, "val": True, "验证": True}
_RENAMED = {"human": "user", "gpt": "assistant", "bot": "assistant"}


@dataclass(frozen=True)
class ChatRow:
    """One example; `number` as the customer sees it, `group` keeps related rows on one side of the split.

    `is_held_out` is true where the customer marked the row for validation.
    """

    number: int
    messages: tuple[tuple[str, str], ...]
    group: str | None = None
    is_held_out: bool = False

    @property
    def prompt(self) -> str:
        """Everything before the last answer, as one comparable text."""
        return "\n".join(f"{role}: {' '.join(content.split())}" for role, content in self.messages[:-1])

    @property
    def answer(self) -> str:
        """The last answer."""
        return self.messages[-1][1]


def build_chats(
    rows: Sequence[SourceRow], asked: Mapping[str, ColumnRole], issues: IssueLog
) -> tuple[list[ChatRow], dict[str, ColumnRole]]:
    """Usable chat rows and the mapping that was used; the rest is in `issues`."""
    if not rows:
        return [], {}
    is_chat = "messages" in rows[0].cells
    same = [row for row in rows if ("messages" in row.cells) == is_chat]
    for row in rows:
        if ("messages" in row.cells) != is_chat:
            issues.add("mixed_formats", row=row.number, format="chat" if is_chat else "table")
    if is_chat:
        group = next((name for name, role in asked.items() if role is ColumnRole.GROUP), None)
        chats = [_read_chat(row, group, issues) for row in same]
        return [chat for chat in chats if chat is not None], {}
    mapping = resolve_mapping(list(rows[0].cells), asked, issues)
    if mapping is None:
        return [], {}
    chats = [_read_table_row(row, mapping, issues) for row in same]
    return [chat for chat in chats if chat is not None], mapping


def _read_table_row(row: SourceRow, mapping: Mapping[str, ColumnRole], issues: IssueLog) -> ChatRow | None:
    parts: dict[ColumnRole, list[str]] = {role: [] for role in ColumnRole}
    for name, role in mapping.items():
        if name not in row.cells or isinstance(row.cells[name], dict | list):
            issues.add("mixed_formats", row=row.number, format="table")
            return None
        value = row.cells[name]
        text = "" if value is None else str(value).strip()
        if text:
            parts[role].append(text)
    if not parts[ColumnRole.COMPLETION]:
        issues.add("empty_answer", row=row.number)
        return None
    if not parts[ColumnRole.PROMPT]:
        issues.add("empty_prompt", row=row.number)
        return None
    system = [("system", "\n".join(parts[ColumnRole.SYSTEM]))] if parts[ColumnRole.SYSTEM] else []
    messages = [
        *system,
        ("user", "\n".join(parts[ColumnRole.PROMPT])),
        ("assistant", "\n".join(parts[ColumnRole.COMPLETION])),
    ]
    is_held_out = _read_split(row.number, "".join(parts[ColumnRole.SPLIT]), issues)
    if is_held_out is None:
        return None
    return ChatRow(row.number, tuple(messages), "\n".join(parts[ColumnRole.GROUP]) or None, is_held_out)


def _read_split(number: int, mark: str, issues: IssueLog) -> bool | None:
    """Whether the row is marked for validation; None (with an issue) for a mark that means nothing."""
    is_held_out = _HELD_OUT.get(mark.strip().lower())
    if is_held_out is None:
        issues.add("split_unrecognized", row=number, value=mark)
    return is_held_out


def _read_chat(row: SourceRow, group: str | None, issues: IssueLog) -> ChatRow | None:
    listed = row.cells["messages"]
    if not isinstance(listed, list) or not listed:
        issues.add("missing_messages_list", row=row.number)
        return None
    messages = [_read_message(message, row.number, issues) for message in listed]
    kept = tuple(message for message in messages if message is not None)
    if len(kept) != len(messages) or not _check_order(row.number, kept, issues):
        return None
    key = row.cells.get(group) if group is not None else None
    is_held_out = _read_split(row.number, str(row.cells.get(_SPLIT_FIELD) or ""), issues)
    if is_held_out is None:
        return None
    return ChatRow(row.number, kept, None if key is None else str(key), is_held_out)


def _read_message(message: Json, number: int, issues: IssueLog) -> tuple[str, str] | None:
    if not isinstance(message, dict):
        issues.add("message_not_object", row=number)
        return None
    role, content = message.get("role"), message.get("content")
    wrong = [name for name, value in (("role", role), ("content", content)) if not isinstance(value, str)]
    for name in wrong:
        issues.add("message_missing_key", row=number, column=name)
    for name in sorted(set(message) - {"role", "content", "weight"}):
        issues.add("message_unrecognized_key", row=number, column=name)
    if message.get("weight") is not None:
        issues.add("weight_unsupported", row=number)
        return None
    if wrong:
        return None
    name = str(role)
    if name in _RENAMED:
        issues.add("role_renamed", row=number)
        name = _RENAMED[name]
    if name not in _ROLES:
        issues.add("unrecognized_role", row=number, value=name)
        return None
    return name, str(content).strip()


def _check_order(number: int, messages: Sequence[tuple[str, str]], issues: IssueLog) -> bool:
    roles = [role for role, _ in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    if "assistant" not in roles:
        issues.add("example_missing_assistant_message", row=number)
        return False
    if len(turns) % 2 or turns != ["user", "assistant"] * (len(turns) // 2):
        issues.add("role_order", row=number)
        return False
    for role, code in (("assistant", "empty_answer"), ("user", "empty_prompt")):
        if any(not content for name, content in messages if name == role):
            issues.add(code, row=number)
            return False
    return True

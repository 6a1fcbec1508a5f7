"""Source rows to chat rows: messages of system, user and assistant in a learnable order.

Leaves single texts to `finetune.cells` and rules across rows (duplicates, contradictions) to `finetune.rules`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from finetune.cells import inspect_text, is_placeholder
from finetune.codec import Json
from finetune.columns import guess_group, resolve_mapping
from finetune.issues import IssueLog
from finetune.sources import SourceRow
from finetune.spec import ColumnRole

_ROLES = ("system", "user", "assistant")
_SPLIT_FIELD = "split"
_HELD_OUT = {"": False, "train": False, "训练": False, "valid": True, "validation": True, "val": True, "验证": True}
_RENAMED = {"human": "user", "gpt": "assistant", "bot": "assistant"}
_LISTS = ("messages", "conversations")
"""Names of the list of a chat row; the second is ShareGPT's, whose messages have `from` and `value`."""


class ChatMessage(NamedTuple):
    """One turn; an answer that is not trained (weight 0) is read before the next question and never learned."""

    role: str
    content: str
    is_trained: bool = True


@dataclass(frozen=True)
class ChatRow:
    """One example, which ends with a trained answer; `number` as the customer sees it.

    `group` keeps related rows on one side of the split; `is_held_out` is true where the customer marked the row for
    validation.
    """

    number: int
    messages: tuple[ChatMessage, ...]
    group: str | None = None
    is_held_out: bool = False

    @property
    def prompt(self) -> str:
        """Everything before the last answer, as one comparable text."""
        return "\n".join(f"{role}: {' '.join(content.split())}" for role, content, _ in self.messages[:-1])

    @property
    def answer(self) -> str:
        """The last answer."""
        return self.messages[-1].content


class ChatReader:
    """Turns rows into chat rows, all in the format of the first one; what does not fit goes to `issues`."""

    def __init__(self, asked: Mapping[str, ColumnRole], issues: IssueLog) -> None:
        self.mapping: dict[str, ColumnRole] = {}
        self._asked = asked
        self._issues = issues
        self._list: str | None = None
        self._is_open = False
        self._is_usable = True

    def read(self, row: SourceRow) -> ChatRow | None:
        """The row as a chat; None if it cannot be learned from."""
        if not self._is_open:
            self._open(row)
        if not self._is_usable:
            return None
        found = _find_list(row)
        if found != self._list:
            self._issues.add("mixed_formats", row=row.number, format="table" if self._list is None else "chat")
            return None
        return self._read_table_row(row) if self._list is None else self._read_chat(row, self._list)

    def _open(self, row: SourceRow) -> None:
        self._is_open = True
        self._list = _find_list(row)
        columns = [name for name in row.cells if name != self._list]
        if self._list is None:
            found = resolve_mapping(columns, self._asked, self._issues)
            self._is_usable = found is not None
            self.mapping = found or {}
            return
        wanted = (ColumnRole.GROUP, ColumnRole.SPLIT)
        self.mapping = {name: role for name, role in self._asked.items() if role in wanted and name in columns}
        if _SPLIT_FIELD in columns and ColumnRole.SPLIT not in self.mapping.values():
            self.mapping[_SPLIT_FIELD] = ColumnRole.SPLIT
        if not self._asked and (group := guess_group(columns, self._issues)) is not None:
            self.mapping[group] = ColumnRole.GROUP

    def _read_table_row(self, row: SourceRow) -> ChatRow | None:
        parts: dict[ColumnRole, list[str]] = {role: [] for role in ColumnRole}
        for name, role in self.mapping.items():
            value = row.cells.get(name)
            if isinstance(value, dict | list):
                self._issues.add("cell_not_text", row=row.number, column=name, value=value)
                return None
            raw = "" if value is None else str(value)
            is_read = role in (ColumnRole.PROMPT, ColumnRole.COMPLETION, ColumnRole.SYSTEM)
            text = inspect_text(raw, row=row.number, column=name, issues=self._issues) if is_read else raw.strip()
            if text is None:
                return None
            if text:
                parts[role].append(text)
        if not self._has_both(row, parts):
            return None
        system = [ChatMessage("system", "\n".join(parts[ColumnRole.SYSTEM]))] if parts[ColumnRole.SYSTEM] else []
        question, answer = "\n".join(parts[ColumnRole.PROMPT]), "\n".join(parts[ColumnRole.COMPLETION])
        if not self._is_worth_learning(row.number, question, answer, self._name_of(ColumnRole.COMPLETION)):
            return None
        return self._finish(row, [*system, ChatMessage("user", question), ChatMessage("assistant", answer)])

    def _has_both(self, row: SourceRow, parts: Mapping[ColumnRole, Sequence[str]]) -> bool:
        for role, code in ((ColumnRole.COMPLETION, "empty_answer"), (ColumnRole.PROMPT, "empty_prompt")):
            if parts[role]:
                continue
            if any(name in row.cells for name, found in self.mapping.items() if found is role):
                self._issues.add(code, row=row.number, column=self._name_of(role))
            else:
                self._issues.add("mixed_formats", row=row.number, format="table")
            return False
        return True

    def _name_of(self, role: ColumnRole) -> str:
        return next(name for name, found in self.mapping.items() if found is role)

    def _is_worth_learning(self, number: int, question: str, answer: str, column: str) -> bool:
        code = "placeholder_answer" if is_placeholder(answer) else "answer_repeats_prompt" if answer == question else ""
        if not code:
            return True
        self._issues.add(code, row=number, column=column, value=answer)
        return not self._issues.fix_of(code)

    def _finish(self, row: SourceRow, messages: Sequence[ChatMessage]) -> ChatRow | None:
        """Add the group and the split mark; None (with an issue) for a mark that means nothing."""
        marks = {role: [] for role in (ColumnRole.GROUP, ColumnRole.SPLIT)}  # type: dict[ColumnRole, list[str]]
        for name, role in self.mapping.items():
            value = row.cells.get(name)
            if role in marks and value is not None and str(value).strip():
                marks[role].append(str(value).strip())
        if self._list is not None and ColumnRole.SPLIT not in self.mapping.values():
            marks[ColumnRole.SPLIT].append(str(row.cells.get(_SPLIT_FIELD) or "").strip())
        mark = "".join(marks[ColumnRole.SPLIT])
        is_held_out = _HELD_OUT.get(mark.lower())
        if is_held_out is None:
            name = next((one for one, role in self.mapping.items() if role is ColumnRole.SPLIT), _SPLIT_FIELD)
            self._issues.add("split_unrecognized", row=row.number, column=name, value=mark)
            return None
        return ChatRow(row.number, tuple(messages), "\n".join(marks[ColumnRole.GROUP]) or None, is_held_out)

    def _read_chat(self, row: SourceRow, name: str) -> ChatRow | None:
        listed = row.cells[name]
        if not isinstance(listed, list) or not listed:
            self._issues.add("missing_messages_list", row=row.number, column=name, value=listed)
            return None
        messages = [self._read_message(one, row.number, f"{name}[{at}]") for at, one in enumerate(listed)]
        kept = tuple(message for message in messages if message is not None)
        if len(kept) != len(messages) or not self._check_order(row.number, kept, name):
            return None
        kept = self._end_with_trained(row.number, kept, name)
        if not kept:
            return None
        question, answer = kept[-2].content, kept[-1].content
        place = f"{name}[{len(kept) - 1}].content"
        if not self._is_worth_learning(row.number, question, answer, place):
            return None
        return self._finish(row, kept)

    def _end_with_trained(self, number: int, messages: tuple[ChatMessage, ...], name: str) -> tuple[ChatMessage, ...]:
        """Nothing learns from what follows the last trained answer: left out, so that it is not paid for either."""
        trained = [at for at, one in enumerate(messages) if one.role == "assistant" and one.is_trained]
        if not trained:
            self._issues.add("example_missing_trained_message", row=number, column=name)
            return ()
        end = trained[-1] + 1
        if end < len(messages):
            self._issues.add("untrained_end", row=number, column=f"{name}[{end}]")
        return messages[:end]

    def _read_message(self, message: Json, number: int, place: str) -> ChatMessage | None:
        issues = self._issues
        if not isinstance(message, dict):
            issues.add("message_not_object", row=number, column=place, value=message)
            return None
        keys = ("from", "value") if self._list == "conversations" else ("role", "content")
        role, content = (message.get(key) for key in keys)
        wrong = [key for key, value in zip(keys, (role, content), strict=True) if not isinstance(value, str)]
        for key in wrong:
            issues.add("message_missing_key", row=number, column=f"{place}.{key}", value=message.get(key))
        for key in sorted(set(message) - {*keys, "weight"}):
            issues.add("message_unrecognized_key", row=number, column=f"{place}.{key}")
        if wrong:
            return None
        name = self._read_role(str(role), number, f"{place}.{keys[0]}")
        if name is None or not self._check_weight(message.get("weight"), name, number, f"{place}.weight"):
            return None
        text = inspect_text(str(content), row=number, column=f"{place}.{keys[1]}", issues=issues)
        return None if text is None else ChatMessage(name, text, is_trained=message.get("weight") != 0)

    def _check_weight(self, weight: Json, role: str, number: int, place: str) -> bool:
        """OpenAI's `weight` of an answer, 0 or 1; others than answers are never learned, whatever they ask for."""
        if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
            self._issues.add("weight_invalid", row=number, column=place, value=weight)
            return False
        if weight and role != "assistant":
            self._issues.add("weight_ignored", row=number, column=place, value=role)
        return True

    def _read_role(self, role: str, number: int, place: str) -> str | None:
        if role in _RENAMED:
            if self._list == "messages":
                self._issues.add("role_renamed", row=number, column=place, value=role)
            role = _RENAMED[role]
        if role not in _ROLES:
            self._issues.add("unrecognized_role", row=number, column=place, value=role)
            return None
        return role

    def _check_order(self, number: int, messages: Sequence[ChatMessage], name: str) -> bool:
        roles = [message.role for message in messages]
        turns = roles[1:] if roles[0] == "system" else roles
        if "assistant" not in roles:
            self._issues.add("example_missing_assistant_message", row=number, column=name, value=", ".join(roles))
            return False
        if len(turns) % 2 or turns != ["user", "assistant"] * (len(turns) // 2):
            self._issues.add("role_order", row=number, column=name, value=", ".join(roles))
            return False
        for role, code in (("assistant", "empty_answer"), ("user", "empty_prompt")):
            for at, message in enumerate(messages):
                if message.role == role and not message.content:
                    self._issues.add(code, row=number, column=f"{name}[{at}].content")
                    return False
        return True


def _find_list(row: SourceRow) -> str | None:
    return next((name for name in _LISTS if name in row.cells), None)

"""Source rows to chat rows: messages of system, user, assistant and tool in a learnable order.

Leaves single texts to `finetune.cells` and rules across rows (duplicates, contradictions) to `finetune.rules`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from finetune.cells import inspect_text, is_placeholder
from finetune.changed_numbers import MOST_CELL_CHARS, NumberWatch
from finetune.codec import Json
from finetune.columns import guess_group, resolve_mapping
from finetune.issues import IssueLog
from finetune.sources import SourceRow
from finetune.spec import ColumnRole

_ROLES = ("system", "user", "assistant", "tool")
_TURNS = re.compile("s?(?:ua(?:t+a)*)+")
"""Initials of the roles: what a tool says stands between what asks for it and what makes use of it."""
_TEXT_ROLES = (ColumnRole.PROMPT, ColumnRole.COMPLETION, ColumnRole.SYSTEM)
_NO_ROLES: frozenset[ColumnRole] = frozenset()
_NEEDED = ((ColumnRole.COMPLETION, "empty_answer"), (ColumnRole.PROMPT, "empty_prompt"))
_EMPTY = {"assistant": "empty_answer", "user": "empty_prompt"}
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
    """Turns rows into chat rows, all in the format of the first one; what does not fit goes to `issues`.

    A row is read to its end whatever is wrong in it, so that its owner gets all that can be known of it at once.
    """

    def __init__(self, asked: Mapping[str, ColumnRole], issues: IssueLog) -> None:
        self.mapping: dict[str, ColumnRole] = {}
        self._asked = asked
        self._issues = issues
        self._list: str | None = None
        self._is_open = False
        self._is_usable = True
        self._is_lost = False
        """Of the row at hand: something in it keeps it out."""
        self._numbers = NumberWatch()

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
        self._is_lost = row.is_lost
        messages = self._read_table_row(row) if self._list is None else self._read_chat(row, self._list)
        group, is_held_out = self._read_marks(row)
        return None if self._is_lost else ChatRow(row.number, tuple(messages), group, is_held_out)

    def finish(self) -> None:
        """Add what only all rows together show of a column."""
        self._numbers.tell(self._issues)

    def _tell(self, code: str, number: int, column: str | None, value: object = None, **values: object) -> None:
        """Add what keeps the row at hand out."""
        self._is_lost = True
        self._issues.add(code, row=number, column=column, value=value, **values)

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

    def _read_table_row(self, row: SourceRow) -> Sequence[ChatMessage]:
        parts: dict[ColumnRole, list[str]] = {role: [] for role in _TEXT_ROLES}
        unknown = _NO_ROLES
        for name, role in self.mapping.items():
            text = self._read_cell(row, name, role)
            if text is None:
                unknown |= {role}
            elif text and role in parts:
                parts[role].append(text)
        self._check_parts(row, parts, unknown)
        texts = {role: "" if role in unknown else "\n".join(found) for role, found in parts.items()}
        question, answer, system = texts[ColumnRole.PROMPT], texts[ColumnRole.COMPLETION], texts[ColumnRole.SYSTEM]
        self._check_answer(row.number, question, answer, self._name_of(ColumnRole.COMPLETION))
        first = [ChatMessage("system", system)] if system else []
        return [*first, ChatMessage("user", question), ChatMessage("assistant", answer)]

    def _read_cell(self, row: SourceRow, name: str, role: ColumnRole) -> str | None:
        """The text of a cell; None where what stands there was told, or is left out on request."""
        if name in row.told:
            return None
        value = row.cells.get(name)
        if isinstance(value, dict | list):
            self._tell("cell_not_text", row.number, name, value)
            return None
        raw = "" if value is None else str(value)
        # asked here and not there: a call for each of millions of cells takes longer than the answer
        if len(raw) <= MOST_CELL_CHARS and "0" <= raw.lstrip()[:1] <= "9" and role is not ColumnRole.SPLIT:
            self._numbers.look(name, row.number, raw)
        return self._inspect(raw, row.number, name) if role in _TEXT_ROLES else raw

    def _inspect(self, text: str, number: int, place: str) -> str | None:
        found = inspect_text(text, row=number, column=place, issues=self._issues)
        if found is None:
            self._is_lost = True
        return found

    def _check_parts(
        self, row: SourceRow, parts: Mapping[ColumnRole, Sequence[str]], unknown: frozenset[ColumnRole]
    ) -> None:
        is_other = False
        for role, code in _NEEDED:
            if parts[role] or role in unknown:
                continue
            if any(name in row.cells for name, found in self.mapping.items() if found is role):
                self._tell(code, row.number, self._name_of(role))
            else:
                is_other = True
        if is_other:
            self._tell("mixed_formats", row.number, None, format="table")

    def _name_of(self, role: ColumnRole) -> str:
        return next(name for name, found in self.mapping.items() if found is role)

    def _check_answer(self, number: int, question: str, answer: str, column: str) -> None:
        """An answer that teaches nothing is told, and left out on request; one that is empty was told before."""
        is_echo = answer == question and answer != ""
        code = "placeholder_answer" if is_placeholder(answer) else "answer_repeats_prompt" if is_echo else ""
        if code:
            self._issues.add(code, row=number, column=column, value=answer)
            self._is_lost = self._is_lost or self._issues.fix_of(code) is not None

    def _read_marks(self, row: SourceRow) -> tuple[str | None, bool]:
        """The group, and whether the row is marked for validation; a mark that means nothing is told."""
        marks = {role: [] for role in (ColumnRole.GROUP, ColumnRole.SPLIT)}  # type: dict[ColumnRole, list[str]]
        for name, role in self.mapping.items():
            if role not in marks or name in row.told:
                continue
            value = row.cells.get(name)
            is_told = self._list is None and isinstance(value, dict | list)
            if value is not None and not is_told and str(value).strip():
                marks[role].append(str(value).strip())
        is_mapped = self._list is None or ColumnRole.SPLIT in self.mapping.values()
        if not is_mapped and _SPLIT_FIELD not in row.told:
            marks[ColumnRole.SPLIT].append(str(row.cells.get(_SPLIT_FIELD) or "").strip())
        mark = "".join(marks[ColumnRole.SPLIT])
        is_held_out = _HELD_OUT.get(mark.lower())
        if is_held_out is None and not self._issues.is_held_out:  # held out whole, whatever the marks say
            name = next((one for one, role in self.mapping.items() if role is ColumnRole.SPLIT), _SPLIT_FIELD)
            self._tell("split_unrecognized", row.number, name, mark)
        return "\n".join(marks[ColumnRole.GROUP]) or None, bool(is_held_out)

    def _read_chat(self, row: SourceRow, name: str) -> Sequence[ChatMessage]:
        listed = row.cells[name]
        if name in row.told:
            return ()
        if not isinstance(listed, list) or not listed:
            self._tell("missing_messages_list", row.number, name, listed)
            return ()
        messages = [self._read_message(one, row.number, f"{name}[{at}]") for at, one in enumerate(listed)]
        roles = [message.role for message in messages]
        if "" in roles:
            return ()
        self._check_tools(row.number, roles, name)
        is_ordered = self._check_order(row.number, roles, name)
        trained = [at for at, one in enumerate(messages) if one.role == "assistant" and one.is_trained]
        if "assistant" in roles and not trained:
            held = self._issues.is_held_out
            self._tell("valid_row_not_scored" if held else "example_missing_trained_message", row.number, name)
        if not is_ordered or not trained:
            return ()
        # nothing learns from what follows the last trained answer: left out, so that it is not paid for either
        end = trained[-1] + 1
        if end < len(messages):
            self._issues.add("untrained_end", row=row.number, column=f"{name}[{end}]")
        question, answer = messages[end - 2].content, messages[end - 1].content
        self._check_answer(row.number, question, answer, f"{name}[{end - 1}].content")
        return messages[:end]

    def _read_message(self, message: Json, number: int, place: str) -> ChatMessage:
        """A turn as far as it is known: a role or a text of which something was told may be empty."""
        if not isinstance(message, dict):
            self._tell("message_not_object", number, place, message)
            return ChatMessage("", "")
        keys = ("from", "value") if self._list == "conversations" else ("role", "content")
        role, content = (message.get(key) for key in keys)
        for key, value in zip(keys, (role, content), strict=True):
            if value is None and key == "content" and message.get("tool_calls"):
                self._tell("tool_calls_without_text", number, f"{place}.tool_calls")
            elif not isinstance(value, str):
                self._tell("message_missing_key", number, f"{place}.{key}", value)
        for key in sorted(set(message) - {*keys, "weight"}):
            self._issues.add("message_unrecognized_key", row=number, column=f"{place}.{key}")
        name = self._read_role(role, number, f"{place}.{keys[0]}") if isinstance(role, str) else ""
        weight = message.get("weight")
        self._check_weight(weight, name, number, f"{place}.weight")
        text = self._read_content(content, name, number, f"{place}.{keys[1]}") if isinstance(content, str) else ""
        return ChatMessage(name, text, is_trained=weight != 0)

    def _read_content(self, content: str, role: str, number: int, place: str) -> str:
        text = self._inspect(content, number, place)
        if text == "" and role in _EMPTY:
            self._tell(_EMPTY[role], number, place)
        return text or ""

    def _check_weight(self, weight: Json, role: str, number: int, place: str) -> None:
        """OpenAI's `weight` of an answer, 0 or 1; others than answers are never learned, whatever they ask for."""
        if weight is None:
            return
        if isinstance(weight, bool) or weight not in (0, 1):
            self._tell("weight_invalid", number, place, weight)
        elif weight and role not in ("assistant", ""):
            self._issues.add("weight_ignored", row=number, column=place, value=role)

    def _read_role(self, role: str, number: int, place: str) -> str:
        if role in _RENAMED:
            if self._list == "messages":
                self._issues.add("role_renamed", row=number, column=place, value=role)
            role = _RENAMED[role]
        if role not in _ROLES:
            self._tell("unrecognized_role", number, place, role)
            return ""
        return role

    def _check_order(self, number: int, roles: Sequence[str], name: str) -> bool:
        if "assistant" not in roles:
            self._tell("example_missing_assistant_message", number, name, ", ".join(roles))
            return False
        if not _TURNS.fullmatch("".join(role[0] for role in roles)):
            self._tell("role_order", number, name, ", ".join(roles))
            return False
        return True

    def _check_tools(self, number: int, roles: Sequence[str], name: str) -> None:
        """Whether a base can read what a tool said is known only with its template: told, left out on request."""
        if "tool" in roles:
            self._issues.add("tool_role", row=number, column=f"{name}[{roles.index('tool')}].role", value="tool")
            self._is_lost = self._is_lost or self._issues.fix_of("tool_role") is not None


def _find_list(row: SourceRow) -> str | None:
    return next((name for name in _LISTS if name in row.cells), None)

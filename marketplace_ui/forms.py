"""What a person typed into a form: read field by field, kept as typed, each refusal beside its input.

It leaves rules to the services: their coded errors are caught here and shown at the field that they name.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TypeVar

from flask import request

from hub.errors import GuanmoError, NotSignedInError
from hub.organisations.signin import BadCredentialsError
from hub.organisations.texts import refuse_hidden_but_lines
from marketplace_ui.layout import translate

WHOLE = ""
"""Name under which an error stands that belongs to no single field."""
SHANGHAI = timezone(timedelta(hours=8))
MAX_WHOLE = 10**15
Member = TypeVar("Member", bound=StrEnum)


class Form:
    """The fields as typed with the errors found so far; a template shows both again."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self.values = dict(values or {})
        self.errors: dict[str, str] = {}

    @classmethod
    def of_request(cls) -> "Form":
        """Return the form that the browser sent (the first value of each name, files left out)."""
        return cls({name: value.replace("\r\n", "\n") for name, value in request.form.items()})

    @property
    def ok(self) -> bool:
        """Whether nothing was refused so far."""
        return not self.errors

    def value(self, name: str) -> str:
        """Return a field as typed, empty if it was not sent."""
        return self.values.get(name, "")

    def error(self, name: str) -> str:
        """Return the message of a field, empty if there is none."""
        return self.errors.get(name, "")

    def refuse(self, name: str, zh: str, en: str) -> None:
        """Note a refusal of a field; the first one stays."""
        self.errors.setdefault(name, translate(zh, en))

    def text(self, name: str, *, required: bool = False, most: int = 200) -> str:
        """Return a text without blanks around it; a password is read by `value` instead."""
        text = self.value(name).strip()
        if required and not text:
            self.refuse(name, "请填写此项。", "Please fill this in.")
        elif len(text) > most:
            self.refuse(
                name,
                f"现有 {len(text)} 个字符，上限 {most}，请缩短。",
                f"{len(text)} characters; the limit is {most}. Shorten it.",
            )
        else:
            self._check_hidden(name, text)
        return text

    def optional(self, name: str, *, most: int = 200) -> str | None:
        """Return a text, None if it is empty."""
        return self.text(name, most=most) or None

    def whole(self, name: str, *, least: int = 1, most: int = MAX_WHOLE) -> int | None:
        """Return a whole number, None if the field is empty."""
        typed = self.value(name).strip().replace(",", "")
        if not typed:
            return None
        number = int(typed) if typed.isascii() and typed.isdecimal() and len(typed) <= 18 else None
        if number is None or not least <= number <= most:
            shown = typed[:30]
            self.refuse(
                name,
                f"“{shown}”不是 {least} 至 {most:,} 的整数，请重新填写。",
                f"'{shown}' is not a whole number from {least} to {most:,}. Type it again.",
            )
            return None
        return number

    def yuan(self, name: str) -> int | None:
        """Return an amount typed in yuan as fen, None if the field is empty."""
        typed = self.value(name).strip().replace(",", "").lstrip("¥￥")
        if not typed:
            return None
        fen = _read_fen(typed)
        if fen is None:
            shown = typed[:30]
            self.refuse(
                name,
                f"“{shown}”不是金额，请按元填写，最多两位小数，如 12.50。",
                f"'{shown}' is not an amount. Give yuan with at most two decimals, for example 12.50.",
            )
        return fen

    def choice(self, name: str, members: type[Member]) -> Member | None:
        """Return the member of an enumeration, None and a refusal if the value is none of them."""
        typed = self.value(name)
        if typed in {str(member) for member in members}:
            return members(typed)
        self.refuse(name, "请从列表中选择一项。", "Choose one of the list.")
        return None

    def day(self, name: str) -> datetime | None:
        """Return the end of a Shanghai day typed as YYYY-MM-DD, None if the field is empty."""
        typed = self.value(name).strip()
        if not typed:
            return None
        try:
            return datetime.strptime(typed, "%Y-%m-%d").replace(tzinfo=SHANGHAI) + timedelta(days=1)
        except ValueError:
            shown = typed[:30]
            self.refuse(
                name, f"“{shown}”不是日期，请按 2026-12-31 的格式填写。", f"'{shown}' is not a date such as 2026-12-31."
            )
            return None

    def catching(self, *known: str) -> "Catching":
        """Return a context that notes a coded refusal at its field (if `known` or sent, else above the form)."""
        return Catching(self, known)

    def _check_hidden(self, name: str, text: str) -> None:
        try:
            refuse_hidden_but_lines(text)
        except ValueError:
            self.refuse(
                name, "含有不可见或控制字符，请删除后重试。", "It holds hidden or control characters; remove them."
            )


class Catching:
    """Swallows the coded refusals that a person can mend; faults of ours and a lost session go on up."""

    def __init__(self, form: Form, known: tuple[str, ...]) -> None:
        self._form = form
        self._known = known

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> bool:
        if not isinstance(error, GuanmoError) or error.status >= 500:
            return False
        if isinstance(error, NotSignedInError) and not isinstance(error, BadCredentialsError):
            return False
        shown = error.field in self._known or error.field in self._form.values
        self._form.refuse(error.field if error.field and shown else WHOLE, error.zh, error.en)
        return True


def _read_fen(typed: str) -> int | None:
    try:
        amount = Decimal(typed) * 100
    except InvalidOperation:
        return None
    sound = amount.is_finite() and 0 <= amount <= MAX_WHOLE and amount == amount.to_integral_value()
    return int(amount) if sound else None

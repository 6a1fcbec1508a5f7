"""The request as the hub's handlers see it: strict JSON only, and no text that a database cannot keep.

It leaves fields and their types to each room's `Body`, and the shape of a refusal to `hub.web`.
"""

from collections.abc import Iterator
from typing import Any

from flask import Request

from hub.errors import GuanmoError, InvalidValueError
from registry.strict_json import JsonRefusedError, parse_json_object

MAX_JSON_BYTES = 8 * 1024 * 1024
MIN_WHOLE, MAX_WHOLE = -(2**63), 2**63 - 1
NUL = ("The request holds a NUL character (U+0000); take it out.", "请求中含有 NUL 字符（U+0000），请删除。")
"""PostgreSQL cannot keep it, and no name, note or address needs it."""


class InvalidJsonError(GuanmoError):
    """The body is not one JSON object with one meaning."""

    code = "invalid_json"


class WrongContentTypeError(GuanmoError):
    """The body came as something other than JSON."""

    code = "wrong_content_type"
    status = 415


class StrictRequest(Request):
    """Flask's request with strict JSON; forms, queries and paths may not hold a NUL character."""

    _read: dict[str, object] | None = None

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """Return the JSON object of the body.

        Raises:
            WrongContentTypeError, and what `read_object` raises: even where the caller asked for silence.
        """
        if not force and not self.is_json:
            given = self.mimetype or "missing"
            raise WrongContentTypeError(
                f"The content type is {given}; send the body as application/json.",
                f"Content-Type 为 {given}，请以 application/json 发送。",
            )
        if self._read is None:
            # Flask points the request at the application's own, lenient parser; this one replaces it for bodies only.
            self._read = read_object(self.get_data(cache=cache))
        return self._read

    def prepare(self) -> None:
        """Refuse what no handler takes and bound what follows; runs before each request.

        Raises:
            InvalidValueError: a NUL character in path or query.
        """
        if self.is_json:
            # Parsed JSON needs many times its bytes; files come as forms, under the application's own limit.
            self.max_content_length = min(MAX_JSON_BYTES, self.max_content_length or MAX_JSON_BYTES)
        _refuse_nul(self.path, *self.args.keys(), *self.args.values())

    def _load_form_data(self) -> None:
        super()._load_form_data()
        fields = self.form.items(multi=True)
        _refuse_nul(*(text for field in fields for text in field))


def read_object(raw: bytes) -> dict[str, object]:
    """Return the one JSON object in `raw`.

    Raises:
        InvalidJsonError: not JSON, another top type, duplicate keys, NaN, too deep, half a surrogate pair.
        InvalidValueError: a NUL character, or a whole number beyond 64 bits.
    """
    try:
        value = parse_json_object(raw, name="the body")
    except JsonRefusedError as error:
        raise InvalidJsonError(f"{error.en[0].upper()}{error.en[1:]}", f"请求正文有误：{error.zh}") from error
    for pointer, leaf in _list_leaves(value):
        _check_leaf(pointer, leaf)
    return value


def _refuse_nul(*texts: str) -> None:
    if any("\0" in text for text in texts):
        raise InvalidValueError(*NUL)


def _list_leaves(value: object) -> Iterator[tuple[str, object]]:
    stack = [("", value)]
    while stack:
        pointer, node = stack.pop()
        if isinstance(node, dict):
            yield from ((pointer, key) for key in node)
            stack.extend((f"{pointer}/{key}", child) for key, child in node.items())
        elif isinstance(node, list):
            stack.extend((f"{pointer}/{index}", child) for index, child in enumerate(node))
        else:
            yield pointer, node


def _check_leaf(pointer: str, leaf: object) -> None:
    if isinstance(leaf, str) and "\0" in leaf:
        raise _refuse_value(pointer, *NUL)
    if isinstance(leaf, int) and not MIN_WHOLE <= leaf <= MAX_WHOLE:
        en = f"A number of {len(str(abs(leaf)))} digits is outside -2^63 to 2^63-1; no field takes it."
        raise _refuse_value(pointer, en, "整数超出 64 位范围（-2^63 至 2^63-1）。")


def _refuse_value(pointer: str, en: str, zh: str) -> InvalidValueError:
    return InvalidValueError(en, zh, errors=[{"pointer": pointer, "code": "invalid_value", "detail": en}])

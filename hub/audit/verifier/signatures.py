"""Checks the signatures of checkpoints, in plain Python: Ed25519 by RFC 8032 section 5.1.7.

It leaves what was signed to `trail`. Slow (about 10 ms a signature) and only for public values, so time leaks nothing.
"""

import base64
import hashlib
from collections.abc import Iterator

from .reading import Export, read_note

_P = 2**255 - 19
_Q = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT_OF_MINUS_ONE = pow(2, (_P - 1) // 4, _P)
Point = tuple[int, int, int, int]


def check_signatures(export: Export, trusted: str | None, outside: list[str]) -> Iterator[str]:
    """Every checkpoint is signed by the key, and those that the authority kept are the same ones."""
    named = export.manifest["public_key"]
    if trusted is not None and trusted.strip() != named:
        yield f"the export names key {named}, you trust {trusted.strip()}"
    public = base64.b64decode((trusted or named).strip().split("+", 2)[2])[1:]
    for row in export.rows("checkpoints"):
        body, _, tail = row["note"].partition("\n\n")
        signature = base64.b64decode(tail.split(" ")[2])
        if not is_signed(public, f"{body}\n".encode(), signature[4:]):
            yield f"checkpoint {row['size']} is not signed by {named[:24]}…"
    kept = {read_note(note)["size"]: note for note in outside}
    if export.manifest["tree_size"] > max(kept, default=1 << 62):
        yield f"your copy of the checkpoints ends at {max(kept)}, before this export's {export.manifest['tree_size']}"
    for row in export.rows("checkpoints"):
        if kept and row["size"] in kept and kept[row["size"]] != row["note"]:
            yield f"checkpoint {row['size']} is not the one in your copy"
        if kept and row["size"] not in kept and row["size"] >= min(kept):
            yield f"checkpoint {row['size']} is missing in your copy"


def is_signed(public: bytes, message: bytes, signature: bytes) -> bool:
    """Say whether an Ed25519 signature of a message is by this public key (32 bytes)."""
    if len(public) != 32 or len(signature) != 64:
        return False
    key, commitment = _read_point(public), _read_point(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if key is None or commitment is None or scalar >= _Q:
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % _Q
    left, right = _multiply(scalar, _BASE), _add(commitment, _multiply(challenge, key))
    return (left[0] * right[2] - right[0] * left[2]) % _P == 0 == (left[1] * right[2] - right[1] * left[2]) % _P


def _add(first: Point, second: Point) -> Point:
    a = (first[1] - first[0]) * (second[1] - second[0]) % _P
    b = (first[1] + first[0]) * (second[1] + second[0]) % _P
    c, d = 2 * first[3] * second[3] * _D % _P, 2 * first[2] * second[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _multiply(scalar: int, point: Point) -> Point:
    result: Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        point = _add(point, point)
        scalar >>= 1
    return result


def _read_point(packed: bytes) -> Point | None:
    number = int.from_bytes(packed, "little")
    y, sign = number & ((1 << 255) - 1), number >> 255
    x = _recover_x(y, sign) if y < _P else None
    return None if x is None else (x, y, 1, x * y % _P)


def _recover_x(y: int, sign: int) -> int | None:
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT_OF_MINUS_ONE % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    return _P - x if x & 1 != sign else x


_BASE_Y = 4 * pow(5, -1, _P) % _P
_BASE = _read_point(_BASE_Y.to_bytes(32, "little")) or (0, 0, 0, 0)

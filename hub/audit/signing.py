"""The checkpoint's signature: Ed25519 over a note of the tlog-checkpoint shape, with a key the database never sees.

It leaves what is signed, and when, to `checkpoints`. Source: C2SP tlog-checkpoint and signed-note.
"""

import base64
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hub.errors import InvalidValueError

ORIGIN = "guanmo/audit"
_PURPOSE = b"guanmo audit ed25519 v1\x00"
_ALGORITHM = b"\x01"


class CheckpointRefusedError(InvalidValueError):
    """The note is not a checkpoint, or not signed by this key."""

    code = "bad_checkpoint"


@dataclass(frozen=True)
class Signed:
    """What a checkpoint says: so many leaves have this root and end in this link, at this time."""

    size: int
    root: str
    chain_hash: str
    made_at_us: int


class AuditKey:
    """Signs checkpoints. The private key is derived from the installation's `audit_key` secret (0600, no table)."""

    def __init__(self, secret: str) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(_PURPOSE + secret.encode()).digest())
        self.public = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, signed: Signed) -> str:
        """Return the whole note: body, empty line, signature line."""
        body = write_body(signed)
        line = base64.b64encode(key_id(self.public) + self._private.sign(body.encode())).decode()
        return f"{body}\n\N{EM DASH} {ORIGIN} {line}\n"


def verifier_key(public: bytes) -> str:
    """Return the public key as one line, `origin+id+base64`, to be given to the authority."""
    return f"{ORIGIN}+{key_id(public).hex()}+{base64.b64encode(_ALGORITHM + public).decode()}"


def key_id(public: bytes) -> bytes:
    """Return the four bytes that name a key in a signature line."""
    return hashlib.sha256(ORIGIN.encode() + b"\n" + _ALGORITHM + public).digest()[:4]


def write_body(signed: Signed) -> str:
    """Return the signed text: origin, size, root, then our two extension lines."""
    root = base64.b64encode(bytes.fromhex(signed.root)).decode()
    return f"{ORIGIN}\n{signed.size}\n{root}\nchain {signed.chain_hash}\ntime {signed.made_at_us}\n"


def read_note(note: str, public: bytes) -> Signed:
    """Return what a note says once its signature is checked.

    Raises:
        CheckpointRefusedError: out of shape, or not signed by this key.
    """
    body, _, signature = note.partition("\n\n")
    try:
        origin, size, root, chain, time = body.split("\n")
        raw = base64.b64decode(signature.split(" ")[2])
        Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], f"{body}\n".encode())
        found = Signed(int(size), base64.b64decode(root).hex(), chain.removeprefix("chain "), int(time[5:]))
    except (ValueError, IndexError, InvalidSignature) as error:
        raise _refuse(note) from error
    if origin != ORIGIN or raw[:4] != key_id(public) or write_body(found) != f"{body}\n":
        raise _refuse(note)
    return found


def _refuse(note: str) -> CheckpointRefusedError:
    first = " ".join(note.split("\n")[:2])
    return CheckpointRefusedError(
        f"Checkpoint '{first}' is out of shape or not signed by this installation's audit key; "
        "compare it with the copy outside the database.",
        f"检查点“{first}”格式有误或签名不符，请与数据库外的副本核对。",
        field="note",
    )

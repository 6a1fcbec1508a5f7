"""The secrets of one installation: made once by `guanmo init`, read by every server, never made by one.

It leaves rotation to the operator; the database keeps only fingerprints (`hub.cli.init`).
"""

import os
import secrets as entropy
from dataclasses import dataclass
from pathlib import Path

from hub.errors import GuanmoError
from serving.contract import Peppers, pepper_id_of

NAMES = (
    "pepper",
    "session_key",
    "pool.token",
    "gateway.token",
    "worker.token",
    "mlflow.password",
    "cache_salt_key",
    "audit_key",
    "ray.token",
)
PREVIOUS_PEPPER = "pepper.previous"
"""There while keys made under the pepper before go on."""


class SecretsError(GuanmoError):
    """A secret is missing, empty or readable by others."""

    code = "bad_secrets"


@dataclass(frozen=True)
class Secrets:
    """The texts of all secrets by name; never printed, never logged."""

    values: dict[str, str]

    def __repr__(self) -> str:
        return "Secrets(…)"

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    def fingerprint(self, name: str) -> str:
        """Return 16 hex of the secret's sha256: enough to notice a swapped file, useless to guess it."""
        return pepper_id_of(self.values[name].encode())

    @property
    def peppers(self) -> Peppers:
        """Return the pepper of API keys and, where it is kept, the one before."""
        previous = self.values.get(PREVIOUS_PEPPER)
        return Peppers(self.values["pepper"].encode(), None if previous is None else previous.encode())


def make_secrets(home: Path) -> list[str]:
    """Create the missing secret files (0600 in a 0700 folder) and return their names; existing ones stay."""
    folder = home / "secrets"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    made = []
    for name in NAMES:
        try:
            handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
        with os.fdopen(handle, "w") as file:
            file.write(entropy.token_urlsafe(48))
            file.flush()
            os.fsync(file.fileno())
        made.append(name)
    return made


def read_secrets(home: Path) -> Secrets:
    """Return all secrets, the previous pepper too where there is one.

    Raises:
        SecretsError: names every missing or exposed file and the command that makes them.
    """
    folder = home / "secrets"
    problems = []
    values = {}
    for name in (*NAMES, PREVIOUS_PEPPER) if (folder / PREVIOUS_PEPPER).exists() else NAMES:
        path = folder / name
        if not path.is_file() or not (text := path.read_text().strip()):
            problems.append(f"{name} is missing")
        elif path.stat().st_mode & 0o077:
            problems.append(f"{name} is readable by others (chmod 600 {path})")
        else:
            values[name] = text
    if problems:
        text = "; ".join(problems)
        raise SecretsError(
            f"Secrets in {folder}: {text}. Run 'guanmo init'.", f"{folder} 中的密钥有误：{text}。请运行 guanmo init。"
        )
    return Secrets(values)

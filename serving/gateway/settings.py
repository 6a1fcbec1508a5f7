"""The gateway's settings, read once from its command line and secret files.

Defaults for addresses exist nowhere: the caller names every counterpart.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from serving.gateway.watch import Deadlines

DEFAULT_HOLD_S = 120.0


@dataclass(frozen=True)
class Settings:
    """Everything that one gateway process is told."""

    hub_url: str
    token: str
    pool_url: str
    host: str
    port: int
    journal_dir: Path
    pepper: bytes
    hold_s: float
    deadlines: Deadlines


def read_settings(argv: Sequence[str]) -> Settings:
    """Parse the command line and read the secrets. Exits with status 2 and one line on bad input."""
    parser = argparse.ArgumentParser(prog="python -m serving.gateway", description=__doc__)
    parser.add_argument("--hub", required=True, help="base URL of the hub")
    parser.add_argument("--token-file", required=True, type=Path, help="file with the hub's token for gateways")
    parser.add_argument("--pool", required=True, help="base URL of the pool controller")
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--journal", required=True, type=Path, metavar="DIR", help="folder of this gateway's journal")
    parser.add_argument("--pepper-file", required=True, type=Path, help="file with the pepper of API keys")
    parser.add_argument(
        "--hold-s", type=float, default=DEFAULT_HOLD_S, help="how long a request waits for a replica, in seconds"
    )
    for name, default in vars(Deadlines()).items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=float, default=default, help=f"see Deadlines; {default:g} unless given")
    given = parser.parse_args(argv)
    host, _, port = given.listen.rpartition(":")
    if not host or not port.isdigit():
        parser.error(f"--listen is {given.listen!r}; it must look like 127.0.0.1:8080")
    return Settings(
        hub_url=_url(parser, "--hub", given.hub),
        token=_secret(parser, "--token-file", given.token_file).decode(),
        pool_url=_url(parser, "--pool", given.pool),
        host=host.strip("[]"),
        port=int(port),
        journal_dir=given.journal,
        pepper=_secret(parser, "--pepper-file", given.pepper_file),
        hold_s=given.hold_s,
        deadlines=Deadlines(**{name: getattr(given, name) for name in vars(Deadlines())}),
    )


def _url(parser: argparse.ArgumentParser, option: str, value: str) -> str:
    if urlsplit(value).scheme not in ("http", "https"):
        parser.error(f"{option} is {value!r}; it must be a URL such as http://127.0.0.1:8000")
    return value.rstrip("/")


def _secret(parser: argparse.ArgumentParser, option: str, path: Path) -> bytes:
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        parser.error(f"{option} {path} cannot be read: {error.strerror}; 'guanmo init' makes the secrets")
    if not secret:
        parser.error(f"{option} {path} is empty; 'guanmo init' makes the secrets")
    return secret

"""The gateway's settings, read once from its command line and secret files.

Defaults for addresses exist nowhere: the caller names every counterpart.
"""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from serving.contract import Peppers
from serving.gateway.body_budget import BODIES_MIB, MAX_BODY_BYTES, OPTION
from serving.gateway.fair_share import CALLS_PER_REPLICA
from serving.gateway.watch import Deadlines

DEFAULT_HOLD_S = 120.0
MIB = 1024 * 1024


@dataclass(frozen=True)
class ControlPlane:
    """Where keys, money and routes come from in an installation with a hub."""

    hub_url: str
    token: str
    pool_url: str


@dataclass(frozen=True)
class Alone:
    """What takes their place without a hub: `replicas`, each `URL` or `URL=model`, or the `routes` file of a pool.

    `headers` go to each replica.

    `plain` leaves out the fields that only vLLM knows.
    """

    replicas: tuple[str, ...]
    keys: Path
    headers: dict[str, str] = field(default_factory=dict)
    plain: bool = False
    routes: Path | None = None


@dataclass(frozen=True)
class Settings:
    """Everything that one gateway process is told."""

    source: ControlPlane | Alone
    host: str
    port: int
    shared_port: bool
    processes: int
    peers: int
    journal_dir: Path
    shared_dir: Path
    settle_only: bool
    calls_per_replica: int
    admin: tuple[str, int] | None
    log_calls: bool
    otlp_endpoint: str | None
    peppers: Peppers
    hold_s: float
    bodies_bytes: int
    deadlines: Deadlines


def read_settings(argv: Sequence[str]) -> Settings:
    """Parse the command line and read the secrets. Exits with status 2 and one line on bad input."""
    parser = _build_parser()
    given = parser.parse_args(argv)
    host, _, port = given.listen.rpartition(":")
    if not host or not port.isdigit():
        parser.error(f"--listen is {given.listen!r}; it must look like 127.0.0.1:8080")
    for name, least in (("peers", 1), ("calls_per_replica", 1), ("bodies_mib", MAX_BODY_BYTES // MIB)):
        if getattr(given, name) < least:
            parser.error(f"--{name.replace('_', '-')} is {getattr(given, name)}; it must be {least} or more")
    if given.processes < 1 or (given.processes > 1 and port == "0"):
        parser.error(f"--processes is {given.processes}; it must be 1 or more, and several need a fixed port")
    return Settings(
        source=_read_source(parser, given),
        host=host.strip("[]"),
        port=int(port),
        shared_port=given.shared_port,
        processes=given.processes,
        peers=given.peers,
        journal_dir=given.journal,
        shared_dir=given.shared or given.journal,
        settle_only=given.settle_only,
        calls_per_replica=given.calls_per_replica,
        admin=_read_admin(parser, given.admin),
        log_calls=given.log_calls,
        otlp_endpoint=given.otlp_endpoint and _url(parser, "--otlp-endpoint", given.otlp_endpoint),
        peppers=_read_peppers(parser, given),
        hold_s=given.hold_s,
        bodies_bytes=given.bodies_mib * MIB,
        deadlines=Deadlines(**{name: getattr(given, name) for name in vars(Deadlines())}),
    )


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving.gateway", description=__doc__)
    parser.add_argument("--hub", help="base URL of the hub")
    parser.add_argument("--token-file", type=Path, help="file with the hub's token for gateways")
    parser.add_argument("--pool", help="base URL of the pool controller")
    parser.add_argument("--replica", action="append", metavar="URL[=MODEL]", help="stand alone before this server")
    parser.add_argument("--routes", type=Path, metavar="FILE", help="stand alone before the pool that writes this file")
    parser.add_argument("--keys", type=Path, help="key file of a gateway that stands alone")
    parser.add_argument("--replica-key-file", type=Path, help="API key that the replicas ask for")
    parser.add_argument("--plain-openai", action="store_true", help="the replicas are no vLLM: send OpenAI fields only")
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--shared-port", action="store_true", help="let other processes listen on the same port")
    parser.add_argument("--processes", type=int, default=1, help="processes that share the port; one per core at most")
    parser.add_argument("--peers", type=int, default=1, help="how many processes share the port, this one included")
    parser.add_argument("--shared", type=Path, metavar="DIR", help="folder that they share; the journal's unless given")
    parser.add_argument("--settle-only", action="store_true", help="send and give back what a journal holds, then end")
    parser.add_argument(
        "--calls-per-replica", type=int, default=CALLS_PER_REPLICA, help="calls at once on a replica; more wait in turn"
    )
    parser.add_argument("--admin", metavar="HOST:PORT", help="loopback address of /metrics and /load")
    parser.add_argument("--log-calls", action="store_true", help="write a line for each call, without what it said")
    parser.add_argument(
        "--otlp-endpoint", metavar="URL", help="where traces go, such as http://127.0.0.1:4318/v1/traces"
    )
    parser.add_argument("--journal", required=True, type=Path, metavar="DIR", help="folder of this gateway's journal")
    parser.add_argument("--pepper-file", required=True, type=Path, help="file with the pepper of API keys")
    parser.add_argument(
        "--previous-pepper-file", type=Path, help="file with the pepper before it, under which older keys go on"
    )
    parser.add_argument(
        OPTION, type=int, default=BODIES_MIB, help="MiB of request bodies that each process holds at once"
    )
    parser.add_argument(
        "--hold-s", type=float, default=DEFAULT_HOLD_S, help="how long a request waits for a replica, in seconds"
    )
    for name, default in vars(Deadlines()).items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=float, default=default, help=f"see Deadlines; {default:g} unless given")
    return parser


def _read_source(parser: argparse.ArgumentParser, given: argparse.Namespace) -> ControlPlane | Alone:
    alone = bool(given.replica) != bool(given.routes)
    if alone and given.keys and not (given.hub or given.pool or given.token_file):
        headers = {}
        if given.replica_key_file is not None:
            headers["authorization"] = f"Bearer {_text(parser, '--replica-key-file', given.replica_key_file)}"
        for replica in given.replica or ():
            _url(parser, "--replica", replica.partition("=")[0])
        return Alone(tuple(given.replica or ()), given.keys, headers, given.plain_openai, given.routes)
    if given.replica or given.routes or given.keys or not (given.hub and given.pool and given.token_file):
        parser.error("give --hub, --token-file and --pool, or to stand alone --keys with either --replica or --routes")
    return ControlPlane(
        hub_url=_url(parser, "--hub", given.hub),
        token=_text(parser, "--token-file", given.token_file),
        pool_url=_url(parser, "--pool", given.pool),
    )


def _read_peppers(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Peppers:
    current, previous = _secret(parser, "--pepper-file", given.pepper_file), None
    if given.previous_pepper_file is not None:
        if given.keys is not None:
            parser.error("--previous-pepper-file is for keys of a hub; the keys of a key file have one pepper")
        previous = _secret(parser, "--previous-pepper-file", given.previous_pepper_file)
    return Peppers(current, previous)


def _read_admin(parser: argparse.ArgumentParser, given: str | None) -> tuple[str, int] | None:
    if given is None:
        return None
    host, _, port = given.rpartition(":")
    try:
        is_loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback or not port.isdigit():
        parser.error(f"--admin is {given!r}; it must be an address of loopback such as 127.0.0.1:8081")
    return host.strip("[]"), int(port)


def _url(parser: argparse.ArgumentParser, option: str, value: str) -> str:
    if urlsplit(value).scheme not in ("http", "https"):
        parser.error(f"{option} is {value!r}; it must be a URL such as http://127.0.0.1:8000")
    return value.rstrip("/")


def _text(parser: argparse.ArgumentParser, option: str, path: Path) -> str:
    return _secret(parser, option, path).decode()


def _secret(parser: argparse.ArgumentParser, option: str, path: Path) -> bytes:
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        parser.error(f"{option} {path} cannot be read: {error.strerror}; 'guanmo init' makes the secrets")
    if not secret:
        parser.error(f"{option} {path} is empty; 'guanmo init' makes the secrets")
    return secret

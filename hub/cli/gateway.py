"""`guanmo gateway`: the gateway alone, without a hub, before any OpenAI-compatible servers or a pool; and its keys.

It leaves serving to `python -m serving.gateway`, whose key file is described in `serving.gateway.key_file`.
"""

import os
import secrets as entropy
import sys
import uuid
from pathlib import Path
from typing import Annotated

import typer

from serving.contract import key_mac

Keys = Annotated[Path, typer.Option(help="key file; its pepper lies beside it as FILE.pepper")]


def run(
    keys: Keys,
    replica: Annotated[list[str] | None, typer.Option(help="URL or URL=MODEL of a server; may be repeated")] = None,
    routes: Annotated[Path | None, typer.Option(help="instead: file that `python -m serving.pool` writes")] = None,
    listen: Annotated[str, typer.Option(help="HOST:PORT")] = "127.0.0.1:8080",
    journal: Annotated[Path, typer.Option(help="folder of journal, budgets and usage.jsonl")] = Path("gateway"),
    workers: Annotated[int, typer.Option(min=1, help="processes that share the port; one per core at most")] = 1,
    admin: Annotated[str, typer.Option(help="loopback HOST:PORT of /metrics and /load")] = "",
    otlp_endpoint: Annotated[str, typer.Option(help="where traces go: …/v1/traces")] = "",
    log_calls: Annotated[bool, typer.Option("--log-calls", help="a JSON line for each call")] = False,
    replica_key_file: Annotated[Path | None, typer.Option(help="API key that the servers ask for")] = None,
    plain_openai: Annotated[bool, typer.Option("--plain-openai", help="the servers are no vLLM")] = False,
) -> None:
    """Run a gateway with keys, limits, budgets and a journal before OpenAI-compatible servers or a pool of our own."""
    argv = [sys.executable, "-m", "serving.gateway", "--keys", str(keys), "--pepper-file", f"{keys}.pepper"]
    argv += ["--listen", listen, "--journal", str(journal), "--processes", str(workers)]
    for option, value in (("--admin", admin), ("--otlp-endpoint", otlp_endpoint)):
        argv += [option, value] if value else []
    argv += ["--log-calls"] if log_calls else []
    for url in replica or ():
        argv += ["--replica", url]
    if routes is not None:
        argv += ["--routes", str(routes)]
    if replica_key_file is not None:
        argv += ["--replica-key-file", str(replica_key_file)]
    if plain_openai:
        argv.append("--plain-openai")
    os.execv(sys.executable, argv)  # noqa: S606 - the same interpreter, no shell


def make_key(
    keys: Keys,
    name: Annotated[str, typer.Option(help="what the key is for; stands on each usage record")],
    model: Annotated[list[str] | None, typer.Option(help="only these models; may be repeated")] = None,
    rpm: Annotated[int | None, typer.Option(min=1, help="requests a minute")] = None,
    tpm: Annotated[int | None, typer.Option(min=1, help="tokens a minute")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="requests at once")] = None,
    budget_fen: Annotated[int | None, typer.Option(min=0, help="money in fen; needs prices in the file")] = None,
) -> None:
    """Add a key to the file and print it, once; the file keeps only its HMAC."""
    pepper, key_id = _read_pepper(Path(f"{keys}.pepper")), uuid.uuid4().hex
    key = f"gm_{key_id}_{entropy.token_urlsafe(32)}"
    lines = ["[[keys]]", f"id = {_quote(key_id)}", f"name = {_quote(name)}", f"mac = {_quote(key_mac(pepper, key))}"]
    if model:
        lines.append(f"models = [{', '.join(map(_quote, model))}]")
    limits = {"rpm": rpm, "tpm": tpm, "concurrency": concurrency, "budget_fen": budget_fen}
    lines += [f"{field} = {value}" for field, value in limits.items() if value is not None]
    with keys.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n\n")
    print(key)


def _read_pepper(path: Path) -> bytes:
    """Return the pepper, made at the first key."""
    if not path.exists():
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with open(fd, "w", encoding="ascii") as file:
            file.write(entropy.token_urlsafe(32) + "\n")
    return path.read_bytes().strip()


def _quote(text: str) -> str:
    """Return a TOML basic string."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in plain) + '"'

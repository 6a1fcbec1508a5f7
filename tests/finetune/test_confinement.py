"""Cases S4-11 and S4-12 of the threat list: what a trainer that went wrong cannot do, tried from inside one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.spec import Data, Kind, Limits, RunSpec, SourceFormat
from tests.finetune.conftest import ROOT, read_result
from tests.finetune.seeded_errors import chat

MEBI = 1 << 20
INSIDE = """
import json, os, socket, subprocess, sys, threading
from pathlib import Path
from finetune.__main__ import confine
from finetune.spec import RunSpec

spec_path, out, other = (Path(text) for text in sys.argv[1:4])
spec = RunSpec.from_json(spec_path.read_text())
enforced = confine(spec, spec_path, out)

def connect(family, address):
    with socket.socket(family) as made:
        made.settimeout(2)
        made.connect(address)

def run_thread():
    thread = threading.Thread(target=list)
    thread.start()
    thread.join()

acts = {
    "egress": lambda: connect(socket.AF_INET, ("127.0.0.1", int(sys.argv[4]))),
    "metadata": lambda: connect(socket.AF_INET, ("169.254.169.254", 80)),
    "egress_v6": lambda: connect(socket.AF_INET6, ("::1", int(sys.argv[4]))),
    "docker_socket": lambda: connect(socket.AF_UNIX, "/var/run/docker.sock"),
    "read_other": lambda: (other / "rows.jsonl").read_text(),
    "list_other": lambda: list(other.iterdir()),
    "write_other": lambda: (other / "mine").write_text("x"),
    "write_own_input": lambda: Path(spec.data.source).write_text("x"),
    "write_program": lambda: Path(json.__file__).open("a"),
    "secrets_of_init": lambda: Path("/proc/1/environ").read_bytes(),
    "signal_parent": lambda: os.kill(os.getppid(), 0),
    "fork": lambda: os._exit(0) if os.fork() == 0 else None,
    "program": lambda: subprocess.run(["/bin/true"], check=True),
    "large_file": lambda: (out / "large").write_bytes(b"x" * (spec.limits.file_bytes + 1)),
    "memory": lambda: bytearray(spec.limits.memory_bytes),
    "read_input": lambda: Path(spec.data.source).read_text(),
    "write_out": lambda: (out / "draft").rename(out / "done") if (out / "draft").write_text("x") else None,
    "thread": run_thread,
}
found = {}
for name, act in acts.items():
    try:
        act()
        found[name] = "done"
    except (OSError, MemoryError) as error:
        found[name] = type(error).__name__
print(json.dumps([enforced, found]))
"""
ALLOWED = {"read_input", "write_out", "thread"}


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("confined")
    out, other = folder / "out", folder / "other"
    for made in (out, other):
        made.mkdir()
    (other / "rows.jsonl").write_text("another firm's row")
    spec = RunSpec(
        kind=Kind.CHECK,
        run_id="run_1",
        data=Data(str(folder / "rows.jsonl"), SourceFormat.JSONL),
        limits=Limits(file_bytes=MEBI, memory_bytes=1024 * MEBI),
    )
    (folder / "rows.jsonl").write_text("{}")
    (folder / "spec.json").write_text(spec.to_json())
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = [sys.executable, "-c", INSIDE, *(str(path) for path in (folder / "spec.json", out, other)), str(port)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    enforced, found = json.loads(done.stdout)
    assert enforced == ["file_size", "memory", "files", "network", "signals", "calls"], "this kernel enforces less"
    assert (other / "rows.jsonl").read_text() == "another firm's row"
    return dict(found)


def test_s4_11_no_network_no_metadata_no_other_volume_no_docker_socket(tried: dict[str, str]) -> None:
    hostile = {name: tried[name] for name in tried if name not in ALLOWED | {"fork", "program", "large_file", "memory"}}
    assert len(hostile) == 11
    assert {name: what for name, what in hostile.items() if what != "PermissionError"} == {}


def test_s4_12_no_processes_no_file_and_no_memory_beyond_the_bound(tried: dict[str, str]) -> None:
    assert (tried["fork"], tried["large_file"], tried["memory"]) == ("BlockingIOError", "OSError", "MemoryError")
    assert tried["program"] in ("BlockingIOError", "PermissionError")


def test_what_a_run_needs_still_works(tried: dict[str, str]) -> None:
    assert {tried[name] for name in ALLOWED} == {"done"}


def test_s4_12_a_trainer_that_writes_too_much_ends_by_the_platforms_fault(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(chat(f"pump {n} at {n * 7}", f"seal {n * 3}")) + "\n" for n in range(400)))
    data, limits = Data(str(source), SourceFormat.JSONL), Limits(file_bytes=10_000)
    spec = RunSpec(kind=Kind.CHECK, run_id="run_1", data=data, limits=limits)
    (tmp_path / "spec.json").write_text(spec.to_json())
    command = [sys.executable, "-m", "finetune", str(tmp_path / "spec.json"), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    result = read_result(tmp_path / "out")
    assert (done.returncode, result.reason_code, result.fault) == (1, "storage_failed", "platform")
    assert "File too large" in result.message

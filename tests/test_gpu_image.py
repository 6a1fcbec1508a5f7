"""The GPU image: no lint finding, and its install lines resolved as far as a machine without GPU can take them."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hub import install
from hub.install import Kind, SetupError
from tests.architecture import ROOT

DOCKERFILE = ROOT / "Dockerfile.gpu"


def test_linter_has_nothing_to_say() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    found = subprocess.run([linter, DOCKERFILE], capture_output=True, text=True, check=False, timeout=60)
    assert (found.returncode, found.stdout) == (0, "")


def test_linter_is_able_to_find_something(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN cd /tmp && sudo apt-get install make\n")
    linter = Path(sys.executable).parent / "hadolint"
    assert subprocess.run([linter, bad], capture_output=True, check=False, timeout=60).returncode == 1


def test_python_of_the_image_is_the_one_that_the_locks_are_for() -> None:
    assert read_lines("FROM")[0].startswith("python:3.11.")


def test_apt_packages_exist() -> None:
    """Where apt's lists are empty they are fetched first, as the image does."""
    names = [name for command in list_commands() if "apt-get install" in command for name in list_packages(command)]
    assert len(names) >= 2
    if not any(Path("/var/lib/apt/lists").glob("*_Packages*")):
        subprocess.run(["apt-get", "update", "-q"], check=True, capture_output=True, timeout=200)
    shown = subprocess.run(["apt-cache", "policy", *names], capture_output=True, text=True, check=True, timeout=60)
    candidates = [line.split()[1] for line in shown.stdout.splitlines() if line.strip().startswith("Candidate:")]
    assert len(candidates) == len(names)
    assert "(none)" not in candidates


@pytest.mark.timeout(280)
def test_gpu_lock_can_be_had_whole(tmp_path: Path) -> None:
    """Every pin has a wheel for this Python on the configured index; nothing is downloaded into an environment."""
    lock = ROOT / "requirements" / "gpu.lock"
    command = [sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--no-deps", "--target", str(tmp_path / "x")]
    environment = {**os.environ, **({"UV_DEFAULT_INDEX": index} if (index := find_index()) else {})}
    done = subprocess.run(
        [*command, "--requirement", str(lock)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    pins = [line for line in lock.read_text().splitlines() if "==" in line and not line.startswith("#")]
    assert len(pins) > 150
    assert f"Would install {len(pins)} packages" in done.stderr, done.stderr[-500:]


def test_own_install_line_is_understood(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The image's `python3 -m hub.install …` is parsed by the real program, which stops at the machine check."""
    lines = [shlex.split(command) for command in list_commands() if "hub.install" in command]
    assert len(lines) == 1
    assert lines[0][:3] == ["python3", "-m", "hub.install"]
    seen: list[Kind] = []

    def stop(kind: Kind) -> None:
        seen.append(kind)
        raise SetupError("far enough")

    monkeypatch.setattr(install, "check_machine", lambda _problems: None)
    monkeypatch.setattr(install, "install_packages", stop)
    assert install.main(lines[0][3:]) == 1
    assert seen == [Kind.GPU]
    assert "far enough" in capsys.readouterr().out


def test_what_the_image_starts_are_commands_of_guanmo() -> None:
    started = [line for line in read_lines("CMD") + read_lines("HEALTHCHECK") if "guanmo" in line]
    assert len(started) == 2
    for line in started:
        command = line[line.index("[") :].strip("[]").replace('"', "").split(", ")
        assert command[0] == ".venv/bin/guanmo"
        shown = subprocess.run(
            [Path(sys.executable).parent / "guanmo", command[1], "--help"], capture_output=True, check=False, timeout=60
        )
        assert shown.returncode == 0


def find_index() -> str:
    """Return the package index that pip is set to, for uv reads none of pip's settings; empty for the usual one."""
    asked = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    return os.environ.get("PIP_INDEX_URL") or found.stdout.strip()


def list_commands() -> list[str]:
    """Return the single commands of all RUN lines."""
    return [part.strip() for line in read_lines("RUN") for part in line.split("&&")]


def list_packages(command: str) -> list[str]:
    """Return the package names of an `apt-get install`."""
    words = shlex.split(command)
    return [word for word in words[words.index("install") + 1 :] if not word.startswith("-")]


def read_lines(instruction: str) -> list[str]:
    """Return the arguments of each such instruction, continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [line.removeprefix(f"{instruction} ") for line in text.splitlines() if line.startswith(f"{instruction} ")]

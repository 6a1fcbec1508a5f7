"""Set-up: what it demands of a machine, how it chooses a kind, and what it leaves alone; nothing is installed here."""

import hashlib
import json
import socket
import stat
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from hub import install
from hub.install import Kind, SetupError, check_machine, choose_kind, install_packages, main

Usage = namedtuple("Usage", "total used free")
RECORD = '#!/bin/sh\necho "$0 $@ | $PIP_INDEX_URL | $HTTPS_PROXY | $npm_config_registry" >> {log}\nexit {status}\n'


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A machine that suffices, with an empty checkout."""
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install, "ENVIRONMENT", tmp_path / ".venv")
    monkeypatch.setattr(install, "PYTHON", tmp_path / ".venv" / "bin" / "python")
    monkeypatch.setattr(install.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(install.shutil, "disk_usage", lambda _: Usage(10**12, 0, 11 * 10**9))
    monkeypatch.setattr(install.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096}.get(name, 2 * 10**6))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    for name in ("cpu.lock", "gpu.lock"):
        (tmp_path / "requirements").mkdir(exist_ok=True)
        (tmp_path / "requirements" / name).write_text(f"flask==3.1.3 # {name}\n")
    return monkeypatch


def test_machine_that_suffices_passes(machine: pytest.MonkeyPatch) -> None:
    check_machine()


def test_every_shortage_is_told_at_once_with_value_and_limit(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(install.sys, "version_info", (3, 12, 1))
    machine.setattr(install.platform, "python_version", lambda: "3.12.1")
    machine.setattr(install.platform, "machine", lambda: "aarch64")
    machine.setattr(install.shutil, "disk_usage", lambda _: Usage(10**12, 0, 3 * 10**9))
    machine.setattr(install.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096}.get(name, 500_000))
    with pytest.raises(SetupError) as refusal:
        check_machine()
    for part in (
        "Python is 3.12.1, the locked packages need 3.11 (set PYTHON=python3.11)",
        "processor is aarch64",
        "free disk is 3.0 GB, set-up needs 10 GB",
        "memory is 2.0 GB, the engines need 6 GB",
    ):
        assert part in str(refusal.value)


def test_disk_for_a_set_up_that_is_done_is_not_demanded_again(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine.setattr(install.shutil, "disk_usage", lambda _: Usage(10**12, 0, 2 * 10**9))
    with pytest.raises(SetupError, match="free disk"):
        check_machine()
    write_marker(tmp_path, kind="cpu-index", lock="0")
    check_machine()


def test_working_nvidia_driver_chooses_gpu(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_program(tmp_path / "bin" / "nvidia-smi", status=0)
    assert choose_kind() is Kind.GPU


@pytest.mark.parametrize(("pip_status", "kind"), [(0, Kind.CPU_INDEX), (1, Kind.CPU_PYTORCH)])
@pytest.mark.parametrize("driver", ["none", "broken"])
def test_without_gpu_the_index_is_asked_for_a_cpu_torch(
    machine: pytest.MonkeyPatch, tmp_path: Path, pip_status: int, kind: Kind, driver: str
) -> None:
    if driver == "broken":
        write_program(tmp_path / "bin" / "nvidia-smi", status=9)
    write_program(tmp_path / "python", status=pip_status)
    machine.setattr(install.sys, "executable", str(tmp_path / "python"))
    machine.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    machine.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert choose_kind() is kind
    asked = (tmp_path / "calls").read_text()
    assert "-m pip install --dry-run" in asked
    assert "torch==2.13.0+cpu" in asked
    assert "| https://mirror.example/simple | http://proxy.example:3128 |" in asked


def test_choice_once_made_stays(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_marker(tmp_path, kind="cpu-pytorch", lock="0")
    write_program(tmp_path / "bin" / "nvidia-smi", status=0)
    assert choose_kind() is Kind.CPU_PYTORCH


def test_same_lock_is_not_installed_twice(
    machine: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = hashlib.sha256((tmp_path / "requirements" / "cpu.lock").read_bytes()).hexdigest()
    write_marker(tmp_path, kind="cpu-index", lock=lock)
    write_program(tmp_path / ".venv" / "bin" / "python", status=1)
    install_packages(Kind.CPU_INDEX)
    assert not (tmp_path / "calls").exists()
    assert "nothing to install" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "lock", "calls"), [("cpu-index", "cpu.lock", 3), ("cpu-pytorch", "cpu.lock", 5), ("gpu", "gpu.lock", 3)]
)
def test_changed_lock_is_installed_whole_and_marked_last(
    machine: pytest.MonkeyPatch, tmp_path: Path, kind: str, lock: str, calls: int
) -> None:
    write_marker(tmp_path, kind=kind, lock="of another day")
    write_program(tmp_path / ".venv" / "bin" / "python", status=0)
    machine.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    machine.delenv("CI", raising=False)
    install_packages(Kind(kind))
    made = (tmp_path / "calls").read_text().splitlines()
    assert len(made) == calls
    assert f"--no-deps --requirement {tmp_path}/requirements/{lock}" in made[-2]
    assert f"--no-deps --no-build-isolation --editable {tmp_path}" in made[-1]
    assert any("--torch-backend=cpu torch==2.13.0" in call for call in made) is (kind == "cpu-pytorch")
    assert all("https://mirror.example/simple" in call for call in made)
    digest = hashlib.sha256((tmp_path / "requirements" / lock).read_bytes()).hexdigest()
    assert json.loads((tmp_path / ".venv" / "guanmo.json").read_text()) == {"kind": kind, "lock": digest}


def test_failed_install_is_not_marked_and_says_what_to_do(
    machine: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_program(tmp_path / ".venv" / "bin" / "python", status=1)
    machine.setattr(install.venv, "create", lambda *_, **__: None)
    assert main(["--kind", "cpu-index"]) == 1
    told = capsys.readouterr().out
    assert "Set-up kind" in told
    assert "run the same command again" in told
    assert not (tmp_path / ".venv" / "guanmo.json").exists()


def test_environment_left_half_made_is_made_again(
    machine: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interrupted set-up leaves a python without pip."""
    write_program(tmp_path / ".venv" / "bin" / "python", status=1)

    def make(folder: Path, *, with_pip: bool) -> None:
        assert with_pip
        write_program(folder / "bin" / "python", status=0)

    machine.setattr(install.venv, "create", make)
    install_packages(Kind.CPU_INDEX)
    assert "Creating .venv" in capsys.readouterr().out
    assert (tmp_path / ".venv" / "guanmo.json").is_file()


def test_interrupt_is_one_line(machine: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_problems: object) -> None:
        raise KeyboardInterrupt

    machine.setattr(install, "check_machine", interrupt)
    assert main([]) == 1
    assert "Set-up failed: interrupted\nNothing is running" in capsys.readouterr().out


def test_taken_port_is_told_first_with_its_variable(
    machine: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.setenv("GUANMO_HOME", str(tmp_path))
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        machine.setenv("GUANMO_HUB_PORT", str(port))
        assert main(["--demo"]) == 1
    assert f"port {port} is taken; stop what holds it or set GUANMO_HUB_PORT" in capsys.readouterr().out


def test_npm_settings_reach_npm(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_program(tmp_path / "node" / "bin" / "node", status=0)
    assets = tmp_path / "marketplace_ui" / "assets"
    assets.mkdir(parents=True)
    (assets / "page.js").write_text("1")
    (tmp_path / "marketplace_ui" / "static" / "dist").mkdir(parents=True)
    machine.setattr(install, "_node_home", lambda: tmp_path / "node")
    machine.setenv("npm_config_registry", "https://npm.example")
    install.build_assets()
    npm = str(tmp_path / "node" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
    made = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[1:3] for call in made] == [[npm, "ci"], [npm, "run"]]
    assert all("https://npm.example" in call for call in made)
    install.build_assets()
    assert len((tmp_path / "calls").read_text().splitlines()) == 2
    (assets / "page.js").write_text("2")
    install.build_assets()
    assert len((tmp_path / "calls").read_text().splitlines()) == 4


def test_set_up_needs_nothing_but_the_standard_library() -> None:
    """It runs on a bare interpreter: isolated, without site-packages."""
    command = [sys.executable, "-S", "-m", "hub.install", "--help"]
    root = Path(install.__file__).parent.parent
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=60)
    assert shown.returncode == 0, shown.stderr
    assert "--kind" in shown.stdout
    wrong = subprocess.run([*command[:-1], "--kind", "tpu"], cwd=root, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "invalid choice" in wrong.stderr


def write_marker(root: Path, **done: str) -> None:
    """Leave what a finished set-up leaves."""
    (root / ".venv").mkdir(exist_ok=True)
    (root / ".venv" / "guanmo.json").write_text(json.dumps(done))


def write_program(path: Path, *, status: int) -> None:
    """Put a program there that notes how it was called and exits with `status`."""
    root = path.parent
    while not (root / "requirements").is_dir():
        root = root.parent
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(RECORD.format(log=root / "calls", status=status))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)

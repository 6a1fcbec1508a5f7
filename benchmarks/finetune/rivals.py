"""Installs TRL and LLaMA-Factory from the package index into their own environments; they never become requirements."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_TRL = (
    "torch==2.13.0",
    "trl==1.16.0",
    "transformers==5.19.0",
    "peft==0.21.2",
    "accelerate==1.15.0",
    "datasets==5.2.0",
)
# Its own upper bounds; torchvision and torchaudio are left out, because the index has only their CUDA builds.
_LLAMA_FACTORY = (
    "torch==2.13.0",
    "transformers==5.6.0",
    "trl==0.24.0",
    "peft==0.18.1",
    "accelerate==1.11.0",
    "datasets==4.0.0",
    "torchdata==0.11.0",
    "av==16.0.0",
    "tyro<0.9.0",
    *("einops", "fastapi", "fire", "hf-transfer", "matplotlib", "modelscope", "numpy<2.4", "omegaconf", "packaging"),
    *("pandas", "protobuf", "pydantic", "pyyaml", "safetensors", "scipy", "sentencepiece", "sse-starlette"),
    *("tiktoken", "uvicorn"),
)
_AUDIO_STUB = '"""LLaMA-Factory imports torchaudio for audio rows; text rows never call it."""\n'


@dataclass(frozen=True)
class Rival:
    """One competitor: `bare` is installed without its own dependencies, `packages` with theirs."""

    name: str
    packages: Sequence[str]
    bare: Sequence[str] = ()


TRL = Rival("trl", _TRL)
LLAMA_FACTORY = Rival("llamafactory", _LLAMA_FACTORY, bare=("llamafactory==0.9.5",))


def install_rival(rival: Rival, root: Path) -> Path:
    """Return the Python of `root`/<name>, installed on first use."""
    venv = (root / rival.name).absolute()
    done, python = venv / "installed", venv / "bin" / "python"
    if done.exists():
        return python
    print(f"installing {rival.name} into {venv}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
    pip = [str(venv / "bin" / "pip"), "install", "-q"]
    if rival.bare:
        subprocess.run([*pip, "--no-deps", *rival.bare], check=True)
        next((venv / "lib").glob("python3*/site-packages")).joinpath("torchaudio.py").write_text(_AUDIO_STUB)
    subprocess.run([*pip, *rival.packages], check=True)
    done.touch()
    return python

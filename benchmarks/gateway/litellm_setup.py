"""Installs LiteLLM from the package index into its own environment; it never becomes one of our requirements."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LITELLM = "litellm[proxy]==1.106.2"


def install_litellm(venv: Path) -> Path:
    """Return the `litellm` command of `venv`, installed on first use."""
    command = venv.absolute() / "bin" / "litellm"
    if not command.exists():
        print(f"installing {LITELLM} into {venv}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run([str(venv / "bin" / "pip"), "install", "-q", LITELLM], check=True)
    return command

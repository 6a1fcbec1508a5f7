#!/bin/bash
# Resolves both locks from the .in files; versions that are locked stay unless a file asks for others (--upgrade: all).
# The CPU lock leaves out what pulls CUDA (overrides.txt) and names PyTorch without its build, which set-up chooses.
set -euo pipefail
cd "$(dirname "$0")"
compile() { ../.venv/bin/uv pip compile --quiet --python-version 3.11 --no-annotate --no-header "$@"; }
compile hub.in train.in dev.in engine-cpu.in --override overrides.txt --no-emit-find-links \
	${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"} --output-file cpu.lock "$@"
sed -i 's/^torch==2.13.0+cpu$/torch==2.13.0/' cpu.lock
grep -v '^torch==' train.in | compile hub.in - dev.in engine-gpu.in --output-file gpu.lock "$@"
if grep -q '^nvidia-' cpu.lock; then echo "cpu.lock holds CUDA packages; look at overrides.txt" >&2; exit 1; fi

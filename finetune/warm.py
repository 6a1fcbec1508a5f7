"""A process with the training libraries imported that forks one trainer per request: `python -m finetune.warm SOCKET`.

Leaves forking to `serving.launch.forks` and the run itself to `finetune.__main__`. It never opens a parallel region
itself, so a fork finds no half-dead threads.
"""

import importlib
import signal
import sys
from pathlib import Path

from finetune.run import leave_out_unused
from serving.launch import forks

_MODULES = (
    "torch",
    "safetensors.torch",
    "transformers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.llama.modeling_llama",
    "peft",
    "finetune.artifact",
    "finetune.prepare",
    "finetune.rate_probe",
    "finetune.train",
    "finetune.run",
)


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM; returns 2 for wrong usage, and in a fork the exit code of the run that was asked for."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m finetune.warm SOCKET\n")
        return 2
    leave_out_unused()
    for module in _MODULES:
        importlib.import_module(module)
    from finetune.__main__ import run_confined

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    forks.serve(forks.listen(Path(arguments[0])))
    return run_confined(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

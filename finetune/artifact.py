"""The finished adapter as a folder that any PEFT or vLLM loads and coreutils can verify; its manifest beside it.

Leaves storing and publishing it to the registry.
"""

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.codec import Json
from finetune.files import digest_file, digest_text, format_json, sync_file, write_atomic

_PACKAGES = ("torch", "transformers", "peft", "safetensors", "tokenizers")
_CONFIG_FIELDS = (
    "bias",
    "fan_in_fan_out",
    "init_lora_weights",
    "lora_alpha",
    "lora_dropout",
    "modules_to_save",
    "peft_type",
    "r",
    "task_type",
    "use_dora",
    "use_rslora",
)


def write_artifact(out: Path, model: Any, weights_digest: str, *, name: str = "artifact") -> str:
    """Write the adapter into the folder `name` of OUT and return its digest: the sha256 of its SHA256SUMS.

    The base is named by its weights, never by a path of this machine.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder = out / name
    folder.mkdir(exist_ok=True, parents=True)
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in get_peft_model_state_dict(model).items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    sync_file(folder / "adapter_model.safetensors")
    write_atomic(
        folder / "adapter_config.json", format_json(_clean_config(model.peft_config["default"], weights_digest))
    )
    files = ("adapter_config.json", "adapter_model.safetensors")
    sums = "".join(f"{digest_file(folder / file)}  {file}\n" for file in files)
    return write_atomic(folder / "SHA256SUMS", sums)


def write_manifest(out: Path, parts: Mapping[str, Json]) -> str:
    """Write OUT/manifest.json: what went in, with which code on what machine; returns its sha256."""
    manifest: dict[str, Json] = {
        **parts,
        "code_digest": digest_code(),
        "versions": dict(read_versions()),
        "hardware": {
            "machine": platform.machine(),
            "processor": read_processor(),
            "accelerators": _list_accelerators(),
            "cores": os.cpu_count(),
            "threads": os.environ.get("OMP_NUM_THREADS"),
        },
    }
    return write_atomic(out / "manifest.json", format_json(manifest))


def read_processor() -> str:
    """The processor as Linux names it; empty where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _list_accelerators() -> list[Json]:
    import torch

    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def digest_code() -> str:
    """sha256 over name and sha256 of each source file of this package, sorted."""
    folder = Path(__file__).parent
    return digest_text("".join(f"{digest_file(path)}  {path.name}\n" for path in sorted(folder.glob("*.py"))))


def read_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape the result."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **found}


def _clean_config(config: Any, weights_digest: str) -> Json:
    """Only fields that every PEFT since 0.10 and vLLM read; module names shortened to what they have in common."""
    fields = config.to_dict()
    cleaned: dict[str, Json] = {name: fields[name] for name in _CONFIG_FIELDS}
    cleaned["base_model_name_or_path"] = f"sha256:{weights_digest}"
    cleaned["inference_mode"] = True
    cleaned["target_modules"] = [*sorted({str(name).rsplit(".", 1)[-1] for name in config.target_modules})]
    return cleaned

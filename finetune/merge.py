"""`python -m finetune.merge BASE ADAPTER OUT`: add an adapter into its base's weights, as a folder to serve by itself.

A process of its own, for it imports torch and holds the whole base. PEFT does the arithmetic, in fp32, so that every
kind of adapter that it knows comes out right (DoRA, rank-stabilised scaling). Storing the folder is left to the caller.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from finetune.files import sync_file, sync_folder

_COPIED = (
    *("generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja"),
)


def main(arguments: list[str]) -> int:
    """Merge; returns 0, or 2 for wrong usage. OUT must not exist; it appears when it is whole."""
    if len(arguments) != 3:
        sys.stderr.write("usage: python -m finetune.merge BASE ADAPTER OUT\n")
        return 2
    merge_adapter(*(Path(argument) for argument in arguments))
    return 0


def merge_adapter(base: Path, adapter: Path, out: Path) -> None:
    """Write base plus adapter to `out`, in the base's own number format, with the base's tokenizer.

    Raises: FileExistsError when `out` exists; OSError, ValueError of the libraries for unreadable folders.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    if out.exists():
        raise FileExistsError(f"{out} exists; name a folder that does not")
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype="auto", local_files_only=True)
    kept = model.dtype
    merged: Any = PeftModel.from_pretrained(model.to(torch.float32), str(adapter)).merge_and_unload(safe_merge=True)
    draft = out.with_name(f".{out.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    merged.to(kept).save_pretrained(draft)
    for name in _COPIED:
        if (base / name).is_file():
            shutil.copyfile(base / name, draft / name)
    for path in draft.iterdir():
        sync_file(path)
    draft.rename(out)
    sync_folder(out.parent)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

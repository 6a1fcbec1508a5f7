"""What a model is, whatever its packing: digests of weights, tokenizer and chat template.

It leaves lineage to `registry.lineage` and the files' own sums to `registry.artifacts`.
"""

import hashlib
from pathlib import Path

from registry.artifacts import hash_file
from registry.errors import RegistryError
from registry.safetensors_header import BASE_LIMITS, TensorEntry, read_header
from registry.strict_json import read_json_object

_CHUNK_BYTES = 1 << 20
_MAX_TOKENIZER_CONFIG_BYTES = 8 * 1024 * 1024


class IdentityUnknownError(RegistryError):
    """The folder lacks what the digest is made of."""

    code = "identity_unknown"


def weights_digest(folder: Path) -> str:
    """Return the sha256 over one line a tensor, sorted by name: name, dtype, shape and sha256 of the raw bytes.

    A line is `name TAB dtype TAB shape,joined,by,commas TAB sha256 NEWLINE` with safetensors' dtype words (F32, BF16);
    all *.safetensors files of the folder count as one, so sharding does not matter.
    Raises: IdentityUnknownError, SafetensorsRefusedError.
    """
    lines: dict[str, str] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        for name, line in _describe_tensors(shard).items():
            if name in lines:
                raise _twice(name, shard.name)
            lines[name] = line
    if not lines:
        raise _absent(folder, "*.safetensors")
    return hashlib.sha256("".join(lines[name] for name in sorted(lines)).encode()).hexdigest()


def tokenizer_digest(folder: Path) -> str:
    """Return the sha256 of tokenizer.json, byte for byte. Raises: IdentityUnknownError."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise _absent(folder, file.name)
    return hash_file(file)


def template_digest(folder: Path) -> str:
    """Return the sha256 of the chat template's UTF-8 text; of the empty text where there is none."""
    return hashlib.sha256(read_template(folder).encode()).hexdigest()


def read_template(folder: Path) -> str:
    """Return the chat template: chat_template.jinja, else `chat_template` of tokenizer_config.json, else ''.

    Raises: JsonRefusedError; IdentityUnknownError for a list of named templates or text that is not UTF-8.
    """
    file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if file.is_file():
        try:
            return file.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise IdentityUnknownError(
                f"chat_template.jinja is not UTF-8 at byte {error.start}. Save it as UTF-8.",
                f"chat_template.jinja 第 {error.start} 字节不是 UTF-8。请另存为 UTF-8。",
                field=file.name,
            ) from error
    if not config.is_file():
        return ""
    template = read_json_object(config, max_bytes=_MAX_TOKENIZER_CONFIG_BYTES).get("chat_template") or ""
    if not isinstance(template, str):
        raise IdentityUnknownError(
            "tokenizer_config.json names several chat templates. Keep one, as text or as chat_template.jinja.",
            "tokenizer_config.json 中有多个对话模板。请只保留一个。",
            field="chat_template",
        )
    return template


def _describe_tensors(shard: Path) -> dict[str, str]:
    entries = read_header(shard, BASE_LIMITS)
    return {entry.name: _describe_tensor(shard, entry) for entry in entries}


def _describe_tensor(shard: Path, entry: TensorEntry) -> str:
    digest = hashlib.sha256()
    with shard.open("rb") as stream:
        stream.seek(entry.begin)
        left = entry.end - entry.begin
        while left:
            chunk = stream.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise _absent(shard.parent, f"{shard.name} ({left} bytes of {entry.name})")
            digest.update(chunk)
            left -= len(chunk)
    return f"{entry.name}\t{entry.dtype}\t{','.join(map(str, entry.shape))}\t{digest.hexdigest()}\n"


def _twice(name: str, shard: str) -> IdentityUnknownError:
    return IdentityUnknownError(
        f"Tensor {name} of {shard} stands in another shard too. Keep the shards of one model only.",
        f"{shard} 中的张量 {name} 也出现在其他分片。请只保留同一模型的分片。",
        field=name,
    )


def _absent(folder: Path, what: str) -> IdentityUnknownError:
    return IdentityUnknownError(
        f"Folder {folder.name} lacks {what}. Name a complete Hugging Face folder.",
        f"文件夹 {folder.name} 缺少 {what}。请指定完整的 Hugging Face 模型文件夹。",
        field=what,
    )

"""Hostile weight files: each is refused fast, by the header check, without anything being loaded."""

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.adapter_check import check_adapter
from registry.safetensors_header import ADAPTER_LIMITS, SafetensorsRefusedError, read_header
from tests.registry.builders import raw_safetensors

ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
BODY = b"\0" * 4


def _file(header: Any, body: bytes = BODY) -> bytes:
    return raw_safetensors(json.dumps(header).encode(), body)


def _torch_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
    return buffer.getvalue()


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "seven bytes": b"\x01" * 7,
    "pickle renamed": pickle.dumps({"weights": [1.0] * 100}),
    "torch zip": _torch_zip(),
    "zip behind safetensors": _file({"a": ONE}) + _torch_zip(),
    "header longer than the file": struct.pack("<Q", 10**6) + b"{}",
    "header of 2^64-1": struct.pack("<Q", 2**64 - 1) + b"{}" * 10,
    "header of zero": struct.pack("<Q", 0) + b"{}",
    "huge header": raw_safetensors(b'{"a":"' + b"x" * (3 * 1024 * 1024) + b'"}'),
    "truncated": _file({"a": {**ONE, "shape": [100], "data_offsets": [0, 400]}}, b"\0" * 399),
    "trailing bytes": _file({"a": ONE}, BODY + b"\0"),
    "duplicate keys": raw_safetensors(f'{{"a":{json.dumps(ONE)},"a":{json.dumps(ONE)}}}'.encode(), BODY),
    "duplicate inner keys": raw_safetensors(
        b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', BODY
    ),
    "leading spaces": raw_safetensors(b"  " + json.dumps({"a": ONE}).encode(), BODY),
    "extra field": _file({"a": {**ONE, "loader": "os.system"}}),
    "overlap": _file({"a": ONE, "b": ONE}),
    "hole": _file({"a": ONE, "b": {**ONE, "data_offsets": [8, 12]}}, b"\0" * 12),
    "begin after end": _file({"a": {**ONE, "data_offsets": [4, 0]}}),
    "negative shape": _file({"a": {**ONE, "shape": [-1]}}),
    "flag as shape": _file({"a": {**ONE, "shape": [True]}}),
    "shape overflow": _file({"a": {**ONE, "shape": [2**40, 2**40]}}),
    "too many dimensions": _file({"a": {**ONE, "shape": [1] * 9}}),
    "unknown dtype": _file({"a": {**ONE, "dtype": "PY_OBJECT"}}),
    "dtype as list": _file({"a": {**ONE, "dtype": ["F32"]}}),
    "path as name": _file({"../../etc/x": ONE}),
    "NUL in name": _file({"a\0b": ONE}),
    "half a surrogate as name": raw_safetensors(f'{{"\\ud800":{json.dumps(ONE)}}}'.encode(), BODY),
    "name of 10 KB": _file({"a" * 10_240: ONE}),
    "empty name": _file({"": ONE}),
    "too many tensors": _file(
        {f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(4097)}, b""
    ),
    "much metadata": _file({"__metadata__": {"x": "y" * 70_000}, "a": ONE}),
    "metadata no text": _file({"__metadata__": {"x": {"y": 1}}, "a": ONE}),
    "deep header": raw_safetensors(b'{"a":' * 20_000 + b"1" + b"}" * 20_000),
    "list header": raw_safetensors(b"[]"),
    "not UTF-8": raw_safetensors(b'{"\xff":1}'),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_weights_are_refused(case: str, adapter: Path, base: Path) -> None:
    (adapter / "adapter_model.safetensors").write_bytes(HOSTILE[case])
    refusals = check_adapter(adapter, base).refusals
    assert [check.name for check in refusals] == ["weights.header"]
    assert refusals[0].message_zh
    assert refusals[0].message_en.isprintable()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_never_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    sound = bytearray(_file({"__metadata__": {"format": "pt"}, "a": ONE}))
    for _ in range(data.draw(st.integers(1, 4))):
        sound[data.draw(st.integers(0, len(sound) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(sound[: data.draw(st.integers(0, len(sound)))])
    try:
        read_bytes = sum(entry.end - entry.begin for entry in read_header(path, ADAPTER_LIMITS))
    except SafetensorsRefusedError:
        return
    assert read_bytes <= path.stat().st_size

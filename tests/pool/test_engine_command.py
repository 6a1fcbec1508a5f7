"""How engines are started: argv and environment, on CPU and on CUDA."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest

from serving.contract import ReplicaSet, Task
from serving.pool.__main__ import main, read_settings
from serving.pool.engine_command import EngineCommand, VllmCommands
from serving.pool.errors import EngineError
from serving.pool.number_formats import has_bf16_products
from serving.pool.settings import Accelerator
from tests.pool.world import make_desired

DESIRED = make_desired(Path("/bases/one"))


ONE = DESIRED.replica_sets[0]


def build(replica_set: ReplicaSet = ONE, accelerator: Accelerator = Accelerator.CPU) -> EngineCommand:
    commands = VllmCommands(accelerator, 4, {"PATH": "/bin"})
    slot = replace(DESIRED.slots[0], devices=("cuda:2", "cuda:3"))
    return commands(replica_set, slot, model=Path("/bases/one"), port=1234)


def option(command: EngineCommand, name: str) -> str:
    return command.argv[command.argv.index(f"--{name}") + 1]


def test_cpu_starts_eager_and_forked_with_one_core_left_free() -> None:
    command = build()
    assert command.argv[3].endswith("engine_start.py")
    assert (option(command, "max-loras"), option(command, "max-lora-rank")) == ("4", "8")
    assert (option(command, "host"), option(command, "port")) == ("127.0.0.1", "1234")
    assert "--enforce-eager" in command.argv
    assert "--enable-force-include-usage" in command.argv
    assert command.environment["OMP_NUM_THREADS"] == "3"
    assert command.environment["PATH"] == "/bin"


def test_cuda_uses_vllm_serve_on_the_slots_devices_and_no_cpu_settings() -> None:
    command = build(accelerator=Accelerator.CUDA)
    assert Path(command.argv[0]).name == "vllm"
    assert command.argv[1] == "serve"
    assert command.environment["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert "--enforce-eager" not in command.argv
    assert not [name for name in command.environment if name.startswith(("VLLM_CPU", "OMP"))]


@pytest.mark.parametrize(
    ("flags", "able"),
    [
        ("fpu avx2 fma", False),
        ("avx2 avx512f avx512bw avx512vl", False),
        ("avx2 avx512bw avx512dq avx512vl", True),
        ("avx2 avx_ne_convert", True),
    ],
)
def test_a_processor_without_products_of_bf16_serves_in_fp32(
    flags: str, able: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert has_bf16_products(tmp_path / "cpuinfo") is able
    monkeypatch.setattr("serving.pool.engine_command.has_bf16_products", lambda: able)
    assert ("--dtype" in build().argv) is not able
    assert option(build(replace(ONE, engine_args={"dtype": "bfloat16"})), "dtype") == "bfloat16"
    assert "--dtype" not in build(accelerator=Accelerator.CUDA).argv


def test_an_unknown_processor_is_left_to_the_engine(tmp_path: Path) -> None:
    assert has_bf16_products(tmp_path / "nothing")
    (tmp_path / "arm").write_text("processor: 0\nFeatures: fp asimd\n")
    assert has_bf16_products(tmp_path / "arm")


def test_engine_arguments_override_defaults_and_unknown_ones_are_refused() -> None:
    command = build(replace(ONE, engine_args={"max_model_len": 2048, "enforce-eager": False}))
    assert option(command, "max-model-len") == "2048"
    assert "--no-enforce-eager" in command.argv
    for name in ("trust-remote-code", "host", "middleware", "api-key"):
        with pytest.raises(EngineError, match=f"engine_arg_refused.*{name}"):
            build(replace(ONE, engine_args={name: True}))


def test_lora_limits() -> None:
    assert "--enable-lora" not in build(replace(ONE, max_loras=0)).argv
    assert option(build(replace(ONE, max_lora_rank=12)), "max-lora-rank") == "16", "vLLM knows steps only"
    with pytest.raises(EngineError, match="rank_above_limit"):
        build(replace(ONE, max_lora_rank=600))
    with pytest.raises(EngineError, match=r"unknown_engine.*onnx"):
        build(replace(ONE, engine="onnx"))


def make_options(tmp_path: Path, listen: str) -> argparse.Namespace:
    (tmp_path / "token").write_text("secret\n")
    paths = {"token_file": str(tmp_path / "token"), "store": "store", "state": "state", "desired": None, "routes": None}
    return argparse.Namespace(hub="http://hub", listen=listen, keep_replicas=False, **paths)


def test_settings_pass_no_secret_on_to_engines(tmp_path: Path) -> None:
    environment = {"PATH": "/bin", "GUANMO_SECRET": "x", "OPENAI_API_KEY": "y", "VLLM_LOGGING_LEVEL": "INFO"}
    settings = read_settings(make_options(tmp_path, "127.0.0.1:8090"), environment)
    assert settings.environment == {"PATH": "/bin", "VLLM_LOGGING_LEVEL": "INFO"}
    assert (settings.host, settings.port, settings.token) == ("127.0.0.1", 8090, "secret")


@pytest.mark.parametrize("listen", ["0.0.0.0:8090", "8090", "127.0.0.1:x"])
def test_only_loopback_is_served(tmp_path: Path, listen: str) -> None:
    with pytest.raises(ValueError, match="--listen"):
        read_settings(make_options(tmp_path, listen), {})


def test_bad_settings_end_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--hub", "u", "--token-file", "/no/file", "--listen", "127.0.0.1:1", "--store", "s", "--state", "s"])
    assert caught.value.code == 2
    assert "/no/file" in capsys.readouterr().err


def test_engines_send_spans_where_the_environment_says(tmp_path: Path) -> None:
    found = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}
    for environment, told in (({}, False), (found, True)):
        command = VllmCommands(Accelerator.CPU, 2, environment)(ONE, DESIRED.slots[0], model=tmp_path, port=1)
        assert ("--otlp-traces-endpoint" in command.argv) is told
        assert command.environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") == ("http/protobuf" if told else None)


def test_an_embedding_set_pools_and_a_merged_one_answers_to_its_adapter_too() -> None:
    embed = build(replace(ONE, max_loras=0, task=Task.EMBED, engine_args={"pooler-config": "{}"}))
    assert option(embed, "runner") == "pooling"
    assert "--enable-lora" not in embed.argv
    merged = build(replace(ONE, max_loras=0, merged="a" * 64))
    start = merged.argv.index("--served-model-name")
    assert merged.argv[start + 1 : start + 3] == ("base", "lora-" + "a" * 32)


@pytest.mark.parametrize("accelerator", Accelerator)
def test_s5_05_schemas_of_callers_fill_no_disk(accelerator: Accelerator, tmp_path: Path) -> None:
    """vLLM's cache of grammars on disk has no bound; whatever is inherited, it is off."""
    inherited = {"VLLM_V1_USE_OUTLINES_CACHE": "1"}
    command = VllmCommands(accelerator, 2, inherited)(ONE, DESIRED.slots[0], model=tmp_path, port=1)
    assert command.environment["VLLM_V1_USE_OUTLINES_CACHE"] == "0"

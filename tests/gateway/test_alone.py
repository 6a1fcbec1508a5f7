"""`guanmo gateway` without a hub: keys from a file, the same limits, budgets and journal."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from typer.testing import CliRunner

from hub.cli.main import app as command_line
from serving.gateway.settings import read_settings
from serving.gateway.shared_table import FILE_NAME
from tests.gateway.crowd import call, run_crowd
from tests.gateway.samples import make_snapshot
from tests.gateway.world import World, running_world, wait_for

MESSAGES: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running_world(make_snapshot(keys=(), models=()), tmp_path, engines=2) as running:
        yield running


def make_key(folder: Path, *options: str) -> str:
    argv = ["gateway-key", "--keys", f"{folder}/keys.toml", "--name", 'line "7" 焊接', *options]
    made = CliRunner().invoke(command_line, argv)
    assert made.exit_code == 0, made.output
    return made.stdout.strip()


def argv_of(world: World, *options: str, listen: str = "127.0.0.1:0") -> list[str]:
    argv = [sys.executable, "-m", "serving.gateway", "--keys", f"{world.folder}/keys.toml", "--listen", listen]
    return [*argv, "--pepper-file", f"{world.folder}/keys.toml.pepper", "--journal", f"{world.folder}/alone", *options]


@contextlib.contextmanager
def alone(world: World, *options: str, listen: str = "127.0.0.1:0") -> Iterator[str]:
    """Run a gateway that stands alone and yield its base URL; it stops cleanly."""
    log = world.folder / "alone.log"
    with log.open("wb") as file:
        process = subprocess.Popen(argv_of(world, *options, listen=listen), stdout=file, stderr=file)
    try:
        yield wait_for(lambda: re.search(r"on (http://127\.0\.0\.1:\d+)", log.read_text())).group(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def ask(url: str, key: str, model: str = "qwen", **extra: Any) -> Any:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=20) as client:
        return client.chat.completions.create(model=model, messages=MESSAGES, **extra)


def usage_of(world: World) -> list[dict[str, Any]]:
    path = world.folder / "alone" / "usage.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_keys_limits_and_records_without_a_hub(world: World) -> None:
    folder = world.folder
    free, listed = make_key(folder), make_key(folder, "--model", "other", "--rpm", "1")
    engine = world.replica_urls[0]
    with alone(world, "--replica", f"{engine}/v1=qwen", "--replica", f"{engine}=other") as url:
        answer = ask(url, free)
        assert (answer.model, answer.choices[0].message.content) == ("qwen", "xxxxx")
        assert world.engines[0].seen[0]["model"] == "qwen"
        with pytest.raises(openai.PermissionDeniedError):
            ask(url, listed)
        assert ask(url, listed, "other").model == "other"
        with pytest.raises(openai.RateLimitError) as limited:
            ask(url, listed, "other")
        assert limited.value.code == "rate_limit_exceeded"
        with openai.OpenAI(base_url=f"{url}/v1", api_key=free) as client:
            assert {model.id for model in client.models.list()} == {"qwen", "other"}
            with pytest.raises(openai.APIStatusError) as no_hub:
                client.files.list()
        assert no_hub.value.status_code == 501
        records = wait_for(lambda: usage_of(world) if len(usage_of(world)) == 2 else None)
        assert [(record["cost_centre"], record["completion_tokens"]) for record in records] == [
            ('line "7" 焊接', 5)
        ] * 2
    assert free not in (folder / "keys.toml").read_text()


def test_a_budget_holds_over_a_restart(world: World) -> None:
    # 11 prompt and 5 answer tokens cost 5.02 fen; the worst case of one call is below 12 fen.
    key = make_key(world.folder, "--budget-fen", "22")
    keys = world.folder / "keys.toml"
    keys.write_text("[prices]\nprompt = 20000\ncompletion = 960000\n\n" + keys.read_text())
    options = ("--replica", f"{world.replica_urls[0]}=qwen")
    answers = []
    for _ in range(2):
        with alone(world, *options) as url:
            for _ in range(3):
                try:
                    answers.append(ask(url, key, max_tokens=5).choices[0].finish_reason)
                except openai.RateLimitError as error:
                    answers.append(str(error.code))
    assert answers.count("stop") == len(usage_of(world)) >= 1
    assert answers[-1] == "insufficient_quota"
    books = json.loads((world.folder / "alone" / "books.json").read_text())
    assert books["open"] == {}
    assert sum(books["spent"].values()) == answers.count("stop") * (11 * 20_000 + 5 * 960_000) <= 22_000_000


def test_a_key_taken_out_of_the_file_ends_within_a_second(world: World) -> None:
    key, other = make_key(world.folder), make_key(world.folder)
    keys = world.folder / "keys.toml"
    with alone(world, "--replica", f"{world.replica_urls[0]}=qwen") as url:
        assert ask(url, key).model == "qwen"
        keys.write_text("[[keys]]" + keys.read_text().split("[[keys]]")[2])

        def refused() -> bool:
            try:
                ask(url, key)
            except openai.AuthenticationError:
                return True
            return False

        began_s = time.monotonic()
        assert wait_for(refused)
        assert time.monotonic() - began_s < 5.0, "some seconds of a busy machine are beside the product's one"
        assert ask(url, other).model == "qwen"


def test_servers_that_are_no_vllm_get_plain_fields(world: World) -> None:
    key = make_key(world.folder)
    (world.folder / "upstream").write_text("sk-upstream\n")
    options = ("--replica", f"{world.replica_urls[0]}=qwen", "--plain-openai")
    more = ("--replica-key-file", f"{world.folder}/upstream")
    with alone(world, *options, *more) as url, openai.OpenAI(base_url=f"{url}/v1", api_key=key) as client:
        list(client.chat.completions.create(model="qwen", messages=MESSAGES, stream=True, temperature=0))
    sent = world.engines[0].seen[0]
    assert sent["stream_options"] == {"include_usage": True}
    assert {"cache_salt", "return_token_ids"}.isdisjoint(sent)
    assert sent["_authorization"] == "Bearer sk-upstream"


def test_who_leaves_a_server_that_counts_at_the_end_pays_for_the_text_that_it_had(world: World) -> None:
    key, engine = make_key(world.folder), world.engines[0]
    engine.mode, engine.delay_s = "counts-last", 0.1
    with alone(world, "--replica", f"{world.replica_urls[0]}=qwen", "--plain-openai") as url:
        outcome = run_crowd(1, lambda _: call(url, key, leave_after=2, model="qwen"))[0]
        (record,) = wait_for(lambda: usage_of(world))
    assert (outcome.left, outcome.tokens, engine.aborted) == (True, 2, 0)
    assert (record["prompt_tokens"], record["completion_tokens"], record["disputed"]) == (11, 5, False)


def test_several_processes_share_port_and_budgets(world: World) -> None:
    key = make_key(world.folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ("--replica", f"{world.replica_urls[0]}=qwen", "--processes", "2")
    with alone(world, *options, listen=f"127.0.0.1:{port}") as url:
        wait_for(lambda: (world.folder / "alone.log").read_text().count("on http://") == 2)
        for _ in range(8):
            assert ask(url, key).model == "qwen"
        wait_for(lambda: len(usage_of(world)) == 8)
    found = {path.name for path in (world.folder / "alone").iterdir()}
    assert found >= {"2", "gateway.journal", FILE_NAME, "answers", "books.json", "usage.jsonl"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[keys]]\nid = "a"\n', "needs mac"),
        ('[[keys]]\nid = "a"\nmac = "b"\ncolour = 1\n', "colour"),
        ("[[keys]", "no TOML"),
        ('[[keys]]\nid = "a"\nmac = "b"\nrpm = "many"\n', "rpm"),
        ('[[keys]]\nid = "a"\nmac = "b"\nip_ranges = ["x"]\n', "ip_ranges"),
    ],
)
def test_a_wrong_key_file_is_told_at_the_start(world: World, text: str, told: str) -> None:
    make_key(world.folder)
    (world.folder / "keys.toml").write_text(text)
    argv = argv_of(world, "--replica", f"{world.replica_urls[0]}=qwen")
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert told in ended.stderr


def test_a_silent_server_without_a_named_model_is_told_at_the_start(world: World) -> None:
    make_key(world.folder)
    ended = subprocess.run(
        argv_of(world, "--replica", "http://127.0.0.1:9"), capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 1
    assert "--replica http://127.0.0.1:9=MODEL" in ended.stderr


def test_a_key_file_has_one_pepper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pepper").write_text("pepper")
    argv = ["--replica", "http://x", "--keys", "keys.toml", "--listen", "127.0.0.1:0", "--journal", f"{tmp_path}"]
    argv += ["--pepper-file", f"{tmp_path}/pepper"]
    assert read_settings(argv).peppers.previous is None
    with pytest.raises(SystemExit, match="2"):
        read_settings([*argv, "--previous-pepper-file", f"{tmp_path}/pepper"])
    assert "--previous-pepper-file is for keys of a hub" in capsys.readouterr().err

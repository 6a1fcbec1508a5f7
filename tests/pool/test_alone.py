"""A pool and a gateway without a hub: desired state, names and routes are files, and no broken file loses them."""

import argparse
import asyncio
import json
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from typer.testing import CliRunner

from hub.cli.main import app as command_line
from serving.contract import ContractError, DesiredFile, RoutesFile, check_desired, encode, loads
from serving.launch import LocalLaunch
from serving.pool.__main__ import read_settings, run_pool
from serving.pool.engine_command import CommandBuilder
from serving.pool.file_hub import DesiredFileError, FileHub
from serving.pool.settings import Accelerator, Files, Settings, Timing
from tests.architecture import ROOT
from tests.pool.world import (
    BASE_DIGEST,
    FAST,
    eventually,
    fake_commands,
    make_adapter,
    make_base,
    make_desired,
    share_loaded,
    want_adapter,
)


class Alone:
    """One desired file with the pool and the gateway that follow it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.desired, self.routes = folder / "desired.json", folder / "routes.json"
        self.settings = Settings(
            hub_url="",
            token="",
            host="127.0.0.1",
            port=port,
            store=folder / "store",
            state=folder / "state",
            accelerator=Accelerator.CPU,
            cpu_count=2,
            timing=FAST,
            files=Files(self.desired, self.routes),
        )
        self.url = self.key = ""

    def want(self, wanted: DesiredFile) -> None:
        self.desired.write_text(json.dumps(encode(wanted)))

    def written(self) -> RoutesFile:
        return loads(RoutesFile, self.routes.read_bytes())

    async def status(self) -> Mapping[str, Any]:
        async with aiohttp.ClientSession() as http, http.get(f"{self.settings.url}/status") as answer:
            found: Mapping[str, Any] = await answer.json()
            return found

    async def ask(self, model: str) -> tuple[int, str]:
        """Status of one call through the gateway, and its text or error code."""
        body, headers = {"model": model, "prompt": "x" * 300, "max_tokens": 1}, {"authorization": f"Bearer {self.key}"}
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self.url}/v1/completions", json=body, headers=headers) as response,
        ):
            answer = await response.json()
            return response.status, answer["choices"][0]["text"] if response.status == 200 else answer["error"]["code"]

    async def becomes(self, model: str, wanted: tuple[int, str]) -> None:
        for _ in range(300):
            if await self.ask(model) == wanted:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{model}: {await self.ask(model)} instead of {wanted}")

    @asynccontextmanager
    async def pool(
        self, *, keep_replicas: bool = False, commands: CommandBuilder = fake_commands, timing: Timing = FAST
    ) -> AsyncIterator[None]:
        """Run the controller with its HTTP server; leaving stops it as SIGTERM would."""
        stop = asyncio.Event()
        settings = replace(self.settings, keep_replicas=keep_replicas, timing=timing)
        task = asyncio.create_task(run_pool(settings, commands, stop, warm=share_loaded(commands)))
        try:
            yield
        finally:
            stop.set()
            await task

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[None]:
        keys, log = self.folder / "keys.toml", self.folder / "gateway.log"
        self.key = CliRunner().invoke(command_line, ["gateway-key", "--keys", str(keys), "--name", "x"]).stdout.strip()
        argv = [sys.executable, "-m", "serving.gateway", "--routes", str(self.routes), "--listen", "127.0.0.1:0"]
        argv += ["--hold-s", "10"]
        argv += ["--keys", str(keys), "--pepper-file", f"{keys}.pepper", "--journal", str(self.folder / "journal")]
        with log.open("wb") as file:
            process = subprocess.Popen(argv, stdout=file, stderr=file)
        try:
            found = await eventually(lambda: re.search(r"on (http://127\.0\.0\.1:\d+)", log.read_text()))
            self.url = found.group(1)
            yield
            process.terminate()
            assert await asyncio.to_thread(process.wait, 20) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


def run(folder: Path, scenario: Callable[[Alone], Any]) -> None:
    """Play `scenario`; its engines are gone afterwards even when it fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        alone = Alone(folder, probe.getsockname()[1])
    try:
        asyncio.run(scenario(alone))
    finally:
        launch = LocalLaunch(alone.settings.state / "processes")
        for handle in launch.list_mine():
            launch.fence(handle)


def make_wanted(folder: Path, *, minimum: int = 1) -> DesiredFile:
    desired = make_desired(make_base(folder / "base"), minimum=minimum)
    return DesiredFile(desired.replica_sets, desired.slots, names={"qwen": BASE_DIGEST})


def test_an_adapter_that_only_the_file_names_is_called_and_a_second_one_once_it_is_added(tmp_path: Path) -> None:
    first, folder = make_adapter(tmp_path / "new" / "first", tmp_path / "elsewhere")
    second, other = make_adapter(tmp_path / "new" / "second", tmp_path / "elsewhere", text="b")
    plain = make_wanted(tmp_path)
    one = replace(plain, adapters=(want_adapter(first, folder),), names={**plain.names, "line7": first})
    two = replace(one, adapters=(*one.adapters, want_adapter(second, other)), names={**one.names, "line8": second})

    async def scenario(alone: Alone) -> None:
        alone.want(one)
        async with alone.pool(), alone.gateway():
            await alone.becomes("line7", (200, str(tmp_path / "store" / first)))
            assert await alone.ask("qwen") == (200, "base")
            assert await alone.ask("line8") == (404, "model_not_found")
            alone.want(two)
            await alone.becomes("line8", (200, str(tmp_path / "store" / second)))
            alone.want(plain)
            await alone.becomes("line7", (404, "model_not_found"))
        assert alone.written().routes.replicas == (), "what has ended is not offered"

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("text", "code"), [('{"contract_version": 1, "replica_sets": [', "not_json"), ("gone", "desired_file_unreadable")]
)
def test_a_broken_file_loses_nothing_not_even_over_a_restart(tmp_path: Path, text: str, code: str) -> None:
    digest, folder = make_adapter(tmp_path / "new", tmp_path / "store")
    plain = make_wanted(tmp_path)
    wanted = replace(plain, adapters=(want_adapter(digest, folder),), names={**plain.names, "line7": digest})

    async def scenario(alone: Alone) -> None:
        alone.want(wanted)
        async with alone.gateway():
            async with alone.pool(keep_replicas=True):
                await alone.becomes("line7", (200, str(folder)))
                assert (await alone.status())["hub"] == "ok"
                if text == "gone":
                    alone.desired.unlink()
                else:
                    alone.desired.write_text(text)
                for _ in range(100):
                    if (await alone.status())["hub"] != "ok":
                        break
                    await asyncio.sleep(0.05)
                status = await alone.status()
                assert status["hub"] == code
                assert str(alone.desired) in status["hub_problem"]
                assert await alone.ask("line7") == (200, str(folder))
            async with alone.pool():
                await alone.becomes("line7", (200, str(folder)))
                assert {model.name for model in alone.written().models} == {"qwen", "line7"}
                alone.want(replace(wanted, names={"again": digest}))
                await alone.becomes("again", (200, str(folder)))
                assert (await alone.status())["hub"] == "ok"

    run(tmp_path, scenario)


def test_a_full_disk_leaves_the_last_good_file_in_force_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, path, state = make_wanted(tmp_path), tmp_path / "desired.json", tmp_path / "state"
    state.mkdir()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def scenario() -> None:
        path.write_text(json.dumps(encode(plain)))
        hub = FileHub(path, state)
        assert await hub.fetch_desired(after=0, wait_s=0) is not None
        path.write_text(json.dumps(encode(replace(plain, names={"other": BASE_DIGEST}))))
        with monkeypatch.context() as full:
            full.setattr("serving.pool.file_hub.write_atomically", refuse)
            with pytest.raises(DesiredFileError, match="No space left") as told:
                await hub.fetch_desired(after=1, wait_s=0)
            assert (told.value.code, set(hub.names)) == ("state_unwritable", {"qwen"})
        assert await hub.fetch_desired(after=1, wait_s=0) is not None
        assert set(hub.names) == {"other"}

    asyncio.run(scenario())


def test_a_call_starts_the_engine_of_a_set_without_minimum(tmp_path: Path) -> None:
    async def scenario(alone: Alone) -> None:
        alone.want(make_wanted(tmp_path, minimum=0))
        async with alone.pool(), alone.gateway():
            await eventually(lambda: alone.routes.exists() and alone.written().models)
            assert alone.written().routes.replicas == ()
            await alone.becomes("qwen", (200, "base"))

    run(tmp_path, scenario)


@pytest.mark.parametrize("text", ["{", "gone"])
def test_a_broken_routes_file_leaves_the_gateway_with_the_last_one(tmp_path: Path, text: str) -> None:
    async def scenario(alone: Alone) -> None:
        alone.want(make_wanted(tmp_path))
        async with alone.gateway():
            async with alone.pool(keep_replicas=True):
                await alone.becomes("qwen", (200, "base"))
            alone.routes.unlink() if text == "gone" else alone.routes.write_text(text)
            await asyncio.sleep(0.5)
            assert await alone.ask("qwen") == (200, "base")
        assert str(alone.routes) in (tmp_path / "gateway.log").read_text()

    run(tmp_path, scenario)


def test_the_example_of_the_page_is_one_that_a_pool_takes() -> None:
    page = (ROOT / "docs" / "without_a_hub.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    wanted = loads(DesiredFile, example)
    check_desired(wanted)
    assert set(wanted.names.values()) == {wanted.replica_sets[0].base_digest, wanted.adapters[0].digest}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"names": {"qwen": "c" * 64}}, "names.qwen"),
        ({"names": {" ": BASE_DIGEST}}, "names"),
        ({"adapters": ("x" * 64, 8)}, "adapters[0].digest"),
        ({"adapters": ("a" * 64, 9)}, "adapters[0].rank"),
        ({"adapters": ("a" * 64, 0)}, "adapters[0].rank"),
        ({"slots": "set_b"}, "slots[0].set_id"),
        ({"max": 0}, "replica_sets[0].max"),
        ({"base_digest": "B" * 64}, "replica_sets[0].base_digest"),
    ],
)
def test_what_a_pool_could_not_act_on_is_refused_by_field(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    wanted = make_wanted(tmp_path)
    if "names" in change:
        wanted = replace(wanted, names=change["names"])
    elif "adapters" in change:
        digest, rank = change["adapters"]
        wanted = replace(wanted, adapters=(replace(want_adapter(digest, tmp_path), rank=rank),))
    elif "slots" in change:
        wanted = replace(wanted, slots=(replace(wanted.slots[0], set_id=change["slots"]),))
    else:
        wanted = replace(wanted, replica_sets=(replace(wanted.replica_sets[0], **change),))
    with pytest.raises(ContractError) as refused:
        check_desired(wanted)
    assert refused.value.field == field


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    wanted = make_wanted(tmp_path)
    with pytest.raises(ContractError, match="slot_0") as refused:
        check_desired(replace(wanted, slots=wanted.slots * 2))
    assert (refused.value.code, refused.value.field) == ("not_unique", "slots[1].slot_id")


@pytest.mark.parametrize(
    "given",
    [{"hub": "http://x"}, {"desired": "d"}, {"hub": "http://x", "token_file": "t", "desired": "d", "routes": "r"}, {}],
)
def test_a_controller_has_a_hub_or_files(given: dict[str, str]) -> None:
    options = {"hub": None, "token_file": None, "desired": None, "routes": None, "listen": "127.0.0.1:1"}
    with pytest.raises(ValueError, match="either --hub and --token-file, or --desired and --routes"):
        read_settings(argparse.Namespace(**{**options, **given}), {})


def test_the_controllers_log_is_json_and_names_what_is_wrong_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "desired.json").write_text('{"contract_version": 1, "replica_sets": [{}], "slots": []}')
    argv = [sys.executable, "-m", "serving.pool", "--listen", "127.0.0.1:0"]
    argv += ["--desired", str(tmp_path / "desired.json")]
    argv += ["--routes", f"{tmp_path}/routes.json", "--store", f"{tmp_path}/store", "--state", f"{tmp_path}/state"]
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(argv, stdout=file, stderr=file)
    try:
        asyncio.run(eventually(lambda: "desired.json" in log.read_text(), 30))  # a cold import takes seconds
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    (line,) = [json.loads(text) for text in log.read_text().splitlines()]
    assert (line["level"], line["logger"]) == ("warning", "serving.pool.controller")
    assert "replica_sets[0]" in line["message"]

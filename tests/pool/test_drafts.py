"""What downloads and copies leave in the store: kept while somebody fills or wants it, removed otherwise."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from serving.pool.artifacts import verify_folder
from serving.pool.drafts import draft_of, hold_copy, hold_draft, sweep_drafts
from serving.pool.errors import ArtifactError
from serving.pool.remote_artifacts import RemoteArtifacts
from tests.pool.test_controller import become_ready
from tests.pool.test_remote_artifacts import LIMITS, Shop, run
from tests.pool.world import eventually, make_base, make_desired, make_world, want_adapter

ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64
FILLER = """
import asyncio, sys
from pathlib import Path
from serving.pool.drafts import draft_of, hold_draft

async def fill():
    async with hold_draft(draft_of(Path(sys.argv[1]), sys.argv[2])):
        print("holds", flush=True)
        await asyncio.sleep(60)

asyncio.run(fill())
"""
COPIER = """
import sys
from pathlib import Path
from serving.pool import artifacts

def stay(*_):
    print("holds", flush=True)
    sys.stdin.read()

artifacts.verify_folder = stay
artifacts.fetch_artifact(Path(sys.argv[1]).as_uri(), sys.argv[2], Path(sys.argv[3]))
"""


def start(program: str, *arguments: str) -> "subprocess.Popen[str]":
    """Run a program until it holds a folder."""
    argv = [sys.executable, "-c", program, *arguments]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    return process


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def leave(store: Path, digest: str) -> Path:
    """What a broken download left here a while ago."""
    draft = draft_of(store, digest)
    draft.mkdir(parents=True)
    (draft / "weights").write_bytes(b"half")
    return age(draft)


def age(folder: Path) -> Path:
    long_ago = time.time() - 3600
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (long_ago, long_ago))
    return folder


def test_only_what_nobody_wants_is_swept(tmp_path: Path) -> None:
    unwanted, wanted = leave(tmp_path, ONE), leave(tmp_path, TWO)
    of_the_hub, whole, new = tmp_path / f".partial-{'a' * 32}", tmp_path / THREE, draft_of(tmp_path, THREE)
    for folder in (of_the_hub, whole):
        folder.mkdir()
        age(folder)
    new.mkdir()
    assert sweep_drafts(tmp_path, {TWO}) == 1
    assert set(tmp_path.iterdir()) == {wanted, of_the_hub, whole, new}
    assert not unwanted.exists()
    assert sweep_drafts(tmp_path / "none", ()) == 0


def test_a_download_that_runs_keeps_its_folder_and_one_that_was_killed_loses_it(tmp_path: Path) -> None:
    draft = draft_of(tmp_path, ONE)
    process = start(FILLER, str(tmp_path), ONE)
    try:
        age(draft)
        assert sweep_drafts(tmp_path, ()) == 0
        assert draft.is_dir()
    finally:
        kill(process)
    assert sweep_drafts(tmp_path, {ONE}) == 0, "it goes on from there"
    assert sweep_drafts(tmp_path, ()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_runs_keeps_its_folder_and_one_that_was_killed_loses_it(tmp_path: Path) -> None:
    source, store = make_base(tmp_path / "source"), tmp_path / "store"
    (source / "SHA256SUMS").write_text("")
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    process = start(COPIER, str(source), digest, str(store))
    try:
        (scratch,) = store.iterdir()
        age(scratch)
        assert sweep_drafts(store, ()) == 0
    finally:
        kill(process)
    assert sweep_drafts(store, {digest}) == 1, "a copy begins anew"
    assert list(store.iterdir()) == []


def test_a_folder_that_is_held_is_not_swept_by_its_own_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hold_draft(draft_of(tmp_path, ONE)):
            scratch = tmp_path / f".{ONE[:12]}-abc"
            scratch.mkdir()
            with hold_copy(scratch):
                age(scratch)
                age(draft_of(tmp_path, ONE))
                assert sweep_drafts(tmp_path, ()) == 0
        assert sweep_drafts(tmp_path, ()) == 2

    asyncio.run(scenario())


def test_what_another_process_fills_is_waited_for_and_fetched_once(tmp_path: Path) -> None:
    async def scenario(shop: Shop, remote: RemoteArtifacts, digest: str) -> None:
        async with aiohttp.ClientSession() as http:
            other = RemoteArtifacts(http, tmp_path / "store", LIMITS)
            await asyncio.gather(*(one.bring_here(shop.url, digest) for one in (remote, other)))
        assert len(shop.asked) == 3
        assert [path.name for path in (tmp_path / "store").iterdir()] == [digest]

    run(tmp_path, scenario)


def test_a_download_that_was_swept_begins_anew(tmp_path: Path) -> None:
    async def scenario(shop: Shop, remote: RemoteArtifacts, digest: str) -> None:
        shop.ills = {"weights": "cut"}
        with pytest.raises(ArtifactError):
            await remote.bring_here(shop.url, digest)
        age(draft_of(tmp_path / "store", digest))
        assert sweep_drafts(tmp_path / "store", ()) == 1
        shop.ills = {}
        await remote.bring_here(shop.url, digest)
        verify_folder(tmp_path / "store" / digest, digest)

    run(tmp_path, scenario)


def test_a_controller_sweeps_what_its_hub_does_not_want(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    store = tmp_path / "w" / "store"
    desired = make_desired(base, adapters=(want_adapter(TWO, tmp_path / "nowhere"),))
    weights = replace(desired.replica_sets[0], weights_folder=THREE)
    unwanted, of_an_adapter, of_a_base = (leave(store, digest) for digest in (ONE, TWO, THREE))

    async def scenario() -> None:
        async with make_world(tmp_path / "w", replace(desired, replica_sets=(weights,))) as world, world.controller():
            await become_ready(world)
            await eventually(lambda: not unwanted.exists())
            assert of_an_adapter.is_dir()
            assert of_a_base.is_dir()
            world.hub.want(replace(world.hub.desired, adapters=()))
            await eventually(lambda: not of_an_adapter.exists())
            assert of_a_base.is_dir()

    asyncio.run(scenario())

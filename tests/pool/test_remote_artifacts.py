"""Folders over HTTP from a server of this machine that cuts, changes, dribbles, redirects and asks for passwords."""

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import web

from serving.contract import engine_name
from serving.pool.adapter_folders import AdapterFolders
from serving.pool.artifacts import fetch_artifact, verify_folder
from serving.pool.errors import ArtifactError
from serving.pool.remote_artifacts import FetchLimits, RemoteArtifacts, _follow
from tests.pool.test_controller import become_ready, call
from tests.pool.world import eventually, make_adapter, make_base, make_desired, make_world, seal_artifact, want_adapter

SECRET = "s3cret"
LIMITS = FetchLimits(silent_s=1.0, tries=3, pause_s=0.01, keep_free_bytes=0)


@dataclass
class Shop:
    """A file server. `ills` maps a file name to what goes wrong with it; `asked` are name and Range of each request."""

    folder: Path
    ills: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    headers: list[tuple[str | None, str]] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        ill = self.ills.get(name, "")
        self.asked.append((name, request.headers.get("range")))
        self.headers.append((request.headers.get("authorization"), request.query_string))
        if ill.isdigit():
            return web.Response(status=int(ill))
        if ill.startswith("to "):
            raise web.HTTPFound(ill[3:])
        content = (self.folder / name).read_bytes()
        if ill == "changed":
            content = b"!" * len(content)
        begin = int((request.headers.get("range") or "bytes=0-")[6:-1])
        response = web.StreamResponse(status=206 if begin else 200)
        if begin:
            response.headers["content-range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        if ill != "unsized":
            response.content_length = len(content) - begin
        await response.prepare(request)
        await self._send(request, response, content[begin:], ill)
        return response

    async def _send(self, request: web.Request, response: web.StreamResponse, rest: bytes, ill: str) -> None:
        if ill == "cut" and len(rest) > 100:
            await response.write(rest[: len(rest) // 2])
            await asyncio.sleep(0.05)
            assert request.transport is not None
            request.transport.close()
        elif ill in ("dribbles", "silent"):
            for byte in rest:
                await response.write(bytes([byte]))
                await asyncio.sleep(30 if ill == "silent" else 0.02)
        else:
            await response.write(rest)


@asynccontextmanager
async def open_shop(folder: Path) -> AsyncIterator[Shop]:
    shop = Shop(folder)
    app = web.Application()
    app.router.add_get("/a/{name}", shop.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        shop.url = f"http://127.0.0.1:{runner.addresses[0][1]}/a/"
        yield shop
    finally:
        await runner.cleanup()


def run(
    tmp_path: Path, scenario: Callable[[Shop, RemoteArtifacts, str], Awaitable[None]], limits: FetchLimits = LIMITS
) -> None:
    """Play `scenario` with a shop that sells one artifact, by its digest."""
    source = tmp_path / "new"
    source.mkdir(parents=True)
    (source / "adapter_config.json").write_text("{}")
    (source / "weights").write_bytes(bytes(range(256)) * 4096)
    digest, folder = seal_artifact(source, tmp_path / "shop")

    async def play() -> None:
        async with open_shop(folder) as shop, aiohttp.ClientSession() as http:
            await scenario(shop, RemoteArtifacts(http, tmp_path / "store", limits), digest)

    asyncio.run(play())


def refused(tmp_path: Path, code: str, limits: FetchLimits = LIMITS, *, uri: str = "", **ills: str) -> Shop:
    """A fetch that fails with `code`, puts nothing under the digest and tells no secret."""
    seen: list[Shop] = []

    async def scenario(shop: Shop, remote: RemoteArtifacts, digest: str) -> None:
        seen.append(shop)
        shop.ills = ills
        with pytest.raises(ArtifactError) as caught:
            await remote.bring_here(uri or f"{shop.url}?token={SECRET}".replace("//", f"//me:{SECRET}@"), digest)
        assert caught.value.code == code
        assert SECRET not in str(caught.value)
        assert not (tmp_path / "store" / digest).exists()

    run(tmp_path, scenario, limits)
    return seen[0]


def test_a_folder_is_fetched_once_with_the_credentials_of_its_uri(tmp_path: Path) -> None:
    async def scenario(shop: Shop, remote: RemoteArtifacts, digest: str) -> None:
        uri = f"{shop.url}?token={SECRET}".replace("//", f"//me:{SECRET}@")
        found = await asyncio.gather(*(remote.bring_here(uri, digest) for _ in range(2)))
        assert found == [(tmp_path / "store" / digest).as_uri()] * 2
        verify_folder(tmp_path / "store" / digest, digest)
        assert [name for name, _range in shop.asked] == ["SHA256SUMS", "adapter_config.json", "weights"]
        basic = base64.b64encode(f"me:{SECRET}".encode()).decode()
        assert set(shop.headers) == {(f"Basic {basic}", f"token={SECRET}")}
        assert [path.name for path in (tmp_path / "store").iterdir()] == [digest]

    run(tmp_path, scenario)


def test_a_folder_that_is_here_asks_nobody(tmp_path: Path) -> None:
    digest, folder = make_adapter(tmp_path / "new" / "one", tmp_path / "store")

    async def scenario(shop: Shop, remote: RemoteArtifacts, _digest: str) -> None:
        assert await remote.bring_here(shop.url, digest) == folder.as_uri()
        assert await remote.bring_here("file:///anywhere", digest) == "file:///anywhere"
        assert shop.asked == []

    (tmp_path / "new" / "one").parent.rmdir()
    run(tmp_path, scenario)


def test_a_cut_connection_goes_on_where_it_stopped(tmp_path: Path) -> None:
    async def scenario(shop: Shop, remote: RemoteArtifacts, digest: str) -> None:
        shop.ills = {"weights": "cut"}
        with pytest.raises(ArtifactError) as caught:
            await remote.bring_here(shop.url, digest)
        assert caught.value.code == "artifact_unreachable"
        ranges = [begin for name, begin in shop.asked if name == "weights"]
        half = 256 * 4096 // 2
        assert ranges == [None, f"bytes={half}-", f"bytes={half + half // 2}-"]
        shop.ills, shop.asked = {}, []
        async with aiohttp.ClientSession() as http:
            again = RemoteArtifacts(http, tmp_path / "store", LIMITS)
            await again.bring_here(shop.url, digest)
        assert shop.asked == [("weights", f"bytes={half + half // 2 + half // 4}-")], "also after a restart"
        verify_folder(tmp_path / "store" / digest, digest)

    run(tmp_path, scenario)


def test_an_old_part_of_something_else_costs_one_more_try(tmp_path: Path) -> None:
    async def scenario(shop: Shop, remote: RemoteArtifacts, digest: str) -> None:
        part = tmp_path / "store" / f".partial-{digest}" / "weights"
        part.parent.mkdir(parents=True)
        part.write_bytes(b"something else")
        await remote.bring_here(shop.url, digest)
        verify_folder(tmp_path / "store" / digest, digest)
        assert [begin for name, begin in shop.asked if name == "weights"] == ["bytes=14-", None]

    run(tmp_path, scenario)


def test_a_list_that_a_crash_left_unreadable_is_fetched_once_more(tmp_path: Path) -> None:
    async def scenario(shop: Shop, remote: RemoteArtifacts, digest: str) -> None:
        part = tmp_path / "store" / f".partial-{digest}" / "SHA256SUMS"
        part.parent.mkdir(parents=True)
        part.write_bytes(b"\0" * 100)
        await remote.bring_here(shop.url, digest)
        verify_folder(tmp_path / "store" / digest, digest)

    run(tmp_path, scenario)


@pytest.mark.parametrize("lost", ["weights", "SHA256SUMS"])
def test_a_copy_that_was_damaged_here_is_fetched_again_as_far_as_it_differs(tmp_path: Path, lost: str) -> None:
    async def scenario(shop: Shop, remote: RemoteArtifacts, digest: str) -> None:
        folder = tmp_path / "store" / digest
        await remote.bring_here(shop.url, digest)
        (folder / lost).write_bytes(b"!" * (folder / lost).stat().st_size)
        shop.asked = []
        folders = AdapterFolders(tmp_path / "store", lambda: None, remote)
        folders.want([replace(want_adapter(digest, folder), uri=shop.url)])
        await eventually(lambda: folders.folders)
        assert folders.failure(digest) is None
        verify_folder(folder, digest)
        assert {name for name, _range in shop.asked} == {lost}
        assert [path.name for path in (tmp_path / "store").iterdir()] == [digest]

    run(tmp_path, scenario)


def test_a_damaged_copy_is_fetched_again_once_for_all_who_want_it(tmp_path: Path) -> None:
    async def scenario(shop: Shop, remote: RemoteArtifacts, digest: str) -> None:
        folder = tmp_path / "store" / digest
        await remote.bring_here(shop.url, digest)
        (folder / "weights").unlink()
        shop.asked = []

        def verify(uri: str) -> Path:
            return fetch_artifact(uri, digest, tmp_path / "store")

        assert await asyncio.gather(*(remote.bring(shop.url, digest, verify) for _ in range(3))) == [folder] * 3
        assert shop.asked == [("weights", None)]

    run(tmp_path, scenario)


def test_what_has_its_name_in_the_store_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[str] = set()
    sync = os.fsync

    def note(descriptor: int) -> None:
        synced.add(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        sync(descriptor)

    monkeypatch.setattr("os.fsync", note)

    async def scenario(shop: Shop, remote: RemoteArtifacts, digest: str) -> None:
        await remote.bring_here(shop.url, digest)
        assert synced == {".listed", "SHA256SUMS", "adapter_config.json", "weights", f".partial-{digest}"}

    run(tmp_path, scenario)


@pytest.mark.parametrize("name", ["SHA256SUMS", "weights"])
def test_what_differs_from_the_digest_does_not_come_in(tmp_path: Path, name: str) -> None:
    refused(tmp_path, "digest_mismatch", **{name: "changed"})


@pytest.mark.parametrize("ill", ["", "unsized"])
@pytest.mark.parametrize(
    ("name", "limits"),
    [("SHA256SUMS", {"sums_bytes": 50}), ("weights", {"folder_bytes": 100_000}), ("weights", {"files": 1})],
)
def test_what_is_too_large_is_not_kept(tmp_path: Path, name: str, limits: dict[str, int], ill: str) -> None:
    refused(tmp_path, "artifact_too_large", replace(LIMITS, **limits), **{name: ill})
    assert list((tmp_path / "store").iterdir()) == []


def test_a_store_without_room_is_said_before_it_is_full(tmp_path: Path) -> None:
    refused(tmp_path, "store_full", replace(LIMITS, keep_free_bytes=2**62))


def test_a_file_of_unknown_length_stops_before_the_store_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def used(store: Path) -> int:
        return sum(path.stat().st_size for path in store.rglob("*") if path.is_file())

    monkeypatch.setattr("shutil.disk_usage", lambda store: SimpleNamespace(free=500_000 - used(store)))
    refused(tmp_path, "store_full", replace(LIMITS, keep_free_bytes=100_000), weights="unsized")
    assert used(tmp_path / "store") <= 400_000


def test_a_server_that_dribbles_or_falls_silent_is_given_up(tmp_path: Path) -> None:
    slow = replace(LIMITS, grace_s=0.3, least_bytes_per_s=1000.0)
    refused(tmp_path / "slow", "artifact_too_slow", slow, weights="dribbles")
    quiet = replace(LIMITS, silent_s=0.2, tries=2)
    shop = refused(tmp_path / "quiet", "artifact_unreachable", quiet, weights="silent")
    assert [begin for name, begin in shop.asked if name == "weights"] == [None, "bytes=1-"]


@pytest.mark.parametrize(
    ("status", "code", "tries"),
    [("404", "artifact_missing", 1), ("403", "artifact_forbidden", 1), ("503", "artifact_unreachable", 3)],
)
def test_each_refusal_of_a_server_has_its_code(tmp_path: Path, status: str, code: str, tries: int) -> None:
    shop = refused(tmp_path, code, weights=status)
    assert [name for name, _range in shop.asked].count("weights") == tries


def test_redirects_are_followed_within_bounds(tmp_path: Path) -> None:
    async def scenario(shop: Shop, remote: RemoteArtifacts, digest: str) -> None:
        shop.ills = {"weights": "to other"}
        (shop.folder / "other").write_bytes((shop.folder / "weights").read_bytes())
        await remote.bring_here(shop.url, digest)
        verify_folder(tmp_path / "store" / digest, digest)

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("weights", "too_many_redirects"),
        ("http://example.com/x", "unsupported_uri"),
        ("file:///etc/passwd", "unsupported_uri"),
    ],
)
def test_redirects_that_lead_astray_are_not_followed(tmp_path: Path, target: str, code: str) -> None:
    refused(tmp_path, code, weights=f"to {target}")


def test_https_never_becomes_http() -> None:
    assert _follow("https://a.example/x/y?k=1", "../z") == "https://a.example/z"
    assert _follow("http://127.0.0.1:1/x", "https://a.example/z") == "https://a.example/z"
    for target in ("http://127.0.0.1/x", "http://a.example/x", "ftp://a.example/x"):
        with pytest.raises(ArtifactError, match="unsupported_uri"):
            _follow(f"https://a.example/x?token={SECRET}", target)


@pytest.mark.parametrize(
    "uri",
    [f"http://me:{SECRET}@example.com/a", f"http://10.0.0.1/a?token={SECRET}", "https:///a", "http://127.0.0.1:x/a"],
)
def test_plain_http_of_elsewhere_and_what_is_no_url_are_refused(tmp_path: Path, uri: str) -> None:
    assert refused(tmp_path, "unsupported_uri", uri=uri).asked == []


def test_an_engine_runs_a_base_and_an_adapter_from_a_server(tmp_path: Path) -> None:
    digest, adapter = make_adapter(tmp_path / "new" / "one", tmp_path / "shop")
    base_digest, base = seal_artifact(make_base(tmp_path / "new" / "base"), tmp_path / "shop")

    async def scenario() -> None:
        async with open_shop(base) as bases, open_shop(adapter) as adapters:
            desired = make_desired(base, adapters=(want_adapter(digest, adapter),))
            one = replace(desired.replica_sets[0], uri=bases.url, base_digest=base_digest)
            wanted = replace(desired.adapters[0], uri=adapters.url, base_digest=base_digest)
            desired = replace(desired, replica_sets=(one,), adapters=(wanted,))
            async with make_world(tmp_path / "w", desired) as world, world.controller():
                url = await become_ready(world)
                await eventually(lambda: getattr(world.hub.adapter(digest), "ready_on", ()))
                assert await call(url, engine_name(digest)) == (200, str(tmp_path / "w" / "store" / digest))
                assert (tmp_path / "w" / "store" / base_digest / "config.json").is_file()

    asyncio.run(scenario())


def test_a_wrong_adapter_of_a_server_is_told_to_the_hub(tmp_path: Path) -> None:
    digest, adapter = make_adapter(tmp_path / "new" / "one", tmp_path / "shop")

    async def scenario() -> None:
        async with open_shop(adapter) as shop:
            shop.ills = {"adapter_config.json": "changed"}
            wanted = replace(want_adapter(digest, adapter), uri=shop.url)
            desired = make_desired(make_base(tmp_path / "base"), adapters=(wanted,))
            async with make_world(tmp_path / "w", desired) as world, world.controller():
                failed = await eventually(lambda: getattr(world.hub.adapter(digest), "reason_code", None))
                assert failed == "digest_mismatch"

    asyncio.run(scenario())
    assert hashlib.sha256((adapter / "SHA256SUMS").read_bytes()).hexdigest() == digest

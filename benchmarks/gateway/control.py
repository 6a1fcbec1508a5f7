"""The hub and the pool controller as a bench needs them: one key, one model, endless money, all usage taken.

    python -m benchmarks.gateway.control PORT ENGINE_URL

It judges nothing; the records that gateways send are only counted.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time

from aiohttp import web

from serving.contract import (
    AllowanceGrant,
    Filing,
    Meter,
    ModelTarget,
    RouteReplica,
    Routes,
    Snapshot,
    SnapshotKey,
    SnapshotModel,
    SnapshotPrice,
    UsageReply,
    Visibility,
    dumps,
    key_mac,
)

PEPPER = b"bench-pepper"
TOKEN = "bench-token"  # noqa: S105 - of this bench's own loopback processes
SECRET = f"gm_{1:032x}_{'s' * 43}"
MODEL = "bench/model"
BASE = "b" * 64
_SLICE_UFEN = 10**13
_numbers = itertools.count()


def write_snapshot() -> Snapshot:
    """Return one key with every limit set, one filed and priced model."""
    key = SnapshotKey(
        key_id=f"key_{1:032x}",
        mac=key_mac(PEPPER, SECRET),
        pepper_id="p1",
        organisation_id="org_bench",
        cost_centre="bench",
        scopes=("inference",),
        models=(MODEL,),
        ip_ranges=("127.0.0.0/8", "10.0.0.0/8"),
        expires_at=None,
        revoked_at=None,
        rpm=100_000_000,
        tpm=10_000_000_000,
        concurrency=10_000,
        budget_id="bud_bench",
    )
    model = SnapshotModel(
        public_name=MODEL,
        version_id="ver_019a0000000070008000000000000001",
        organisation_id="org_bench",
        owner_may_call=True,
        base_digest=BASE,
        context_tokens=2048,
        visibility=Visibility.PUBLIC,
        acl=(),
        price_version_id="prc_1",
        targets=(ModelTarget("ver_019a0000000070008000000000000001", BASE, 1),),
        locality=None,
        retires_at=None,
        filing=Filing("Bench", "DEMO-备案-0001", None),
    )
    prices = (SnapshotPrice("prc_1", Meter.PROMPT, 3, 1000), SnapshotPrice("prc_1", Meter.COMPLETION, 7, 1000))
    return Snapshot(version=1, issued_at=1, keys=(key,), models=(model,), prices=prices, blocks=())


def build_app(engine_url: str) -> web.Application:
    """Return hub and pool routes in one application."""
    snapshot = dumps(write_snapshot())
    routes = dumps(Routes(1, (RouteReplica("rep_1", 1, engine_url, BASE, draining=False),), {}, {}))

    async def poll(request: web.Request) -> web.Response:
        text = snapshot if request.path.endswith("snapshot") else routes
        if request.query.get("after") == "0":
            return web.Response(text=text, content_type="application/json")
        await asyncio.sleep(5)
        return web.Response(status=204)

    async def grant(request: web.Request) -> web.Response:
        await request.read()
        number = next(_numbers)
        answer = AllowanceGrant(f"alw_{number}", _SLICE_UFEN, int((time.time() + 3600) * 1e6))
        return web.Response(text=dumps(answer), content_type="application/json")

    async def usage(request: web.Request) -> web.Response:
        batch = await request.json()
        reply = UsageReply(batch["first_seq"] + len(batch["records"]) - 1)
        return web.Response(text=dumps(reply), content_type="application/json")

    async def accept(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=204)

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_get("/internal/v1/snapshot", poll)
    app.router.add_get("/routes", poll)
    app.router.add_post("/internal/v1/allowances", grant)
    app.router.add_post("/internal/v1/allowances/close", accept)
    app.router.add_post("/internal/v1/usage", usage)
    app.router.add_post("/demand", accept)
    return app


if __name__ == "__main__":
    web.run_app(build_app(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), print=None)

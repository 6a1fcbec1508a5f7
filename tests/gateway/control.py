"""Small hub and pool controller for the gateway tests; both speak the contract and keep what they were told."""

import asyncio
import itertools
import time
from dataclasses import dataclass, field

from aiohttp import web

from serving.contract import (
    AllowanceClose,
    AllowanceGrant,
    AllowanceRefusal,
    AllowanceRequest,
    Demand,
    Routes,
    Snapshot,
    UsageBatch,
    UsageRecord,
    UsageReply,
    dumps,
    loads,
)

TOKEN = "gateway-token"


def message(body: object, status: int = 200) -> web.Response:
    """Return a contract message as JSON."""
    return web.Response(text=dumps(body), status=status, content_type="application/json")


@dataclass
class Hub:
    """Balance and snapshot are set by the test; allowances, records and closings are kept."""

    snapshot: Snapshot
    balance_ufen: int = 10**12
    life_s: float = 600.0
    down: bool = False
    allowances: dict[str, int] = field(default_factory=dict)
    answers: dict[str, AllowanceGrant] = field(default_factory=dict)
    usage: dict[tuple[str, int], UsageRecord] = field(default_factory=dict)
    closed: dict[str, AllowanceClose] = field(default_factory=dict)
    batches: list[UsageBatch] = field(default_factory=list)
    uploads: list[tuple[str, int]] = field(default_factory=list)
    told: int = 0
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def app(self) -> web.Application:
        """Return the hub's routes."""
        app = web.Application(client_max_size=64 * 1024 * 1024, middlewares=[self._outage])
        app.router.add_get("/internal/v1/snapshot", self.get_snapshot)
        app.router.add_post("/internal/v1/allowances", self.post_allowance)
        app.router.add_post("/internal/v1/allowances/close", self.post_close)
        app.router.add_post("/internal/v1/usage", self.post_usage)
        app.router.add_route("*", "/v1/files{rest:.*}", self.files)
        return app

    @web.middleware
    async def _outage(self, request: web.Request, handler: object) -> web.StreamResponse:
        if self.down:
            return web.Response(status=503, text="secret outage")
        if request.path.startswith("/internal/") and request.headers.get("authorization") != f"Bearer {TOKEN}":
            return web.Response(status=401)
        return await handler(request)  # type: ignore[operator, no-any-return]

    async def get_snapshot(self, request: web.Request) -> web.Response:
        """Wait shortly for a newer snapshot."""
        self.told = max(self.told, int(request.query["after"]))
        for _ in range(40):
            if self.snapshot.version > int(request.query["after"]):
                return message(self.snapshot)
            await asyncio.sleep(0.02)
        return web.Response(status=204)

    async def post_allowance(self, request: web.Request) -> web.Response:
        """Grant what is there, at most what is wanted, which must be something; the same key gets the same answer."""
        asked = loads(AllowanceRequest, await request.read())
        if asked.idempotency_key in self.answers:
            return message(self.answers[asked.idempotency_key])
        if asked.want_ufen <= 0:
            return web.Response(status=422)
        amount = min(asked.want_ufen, self.balance_ufen)
        if amount <= 0:
            refusal = AllowanceRefusal("balance_exhausted", "account balance", asked.organisation_id, 5, 0, None)
            return message(refusal, 402)
        self.balance_ufen -= amount
        grant = AllowanceGrant(f"alw_{next(self.numbers)}", amount, int((time.time() + self.life_s) * 1e6))
        self.allowances[grant.allowance_id] = amount
        self.answers[asked.idempotency_key] = grant
        return message(grant)

    async def post_close(self, request: web.Request) -> web.Response:
        """Take back what was not spent."""
        close = loads(AllowanceClose, await request.read())
        if close.allowance_id not in self.closed:
            self.balance_ufen += self.allowances[close.allowance_id] - close.spent_ufen
        self.closed[close.allowance_id] = close
        return web.Response(status=204)

    async def post_usage(self, request: web.Request) -> web.Response:
        """Store records by key."""
        batch = loads(UsageBatch, await request.read())
        self.batches.append(batch)
        for record in batch.records:
            self.usage.setdefault((record.request_id, record.attempt), record)
        return message(UsageReply(batch.first_seq + len(batch.records) - 1))

    async def files(self, request: web.Request) -> web.Response:
        """Answer a proxied upload."""
        body = await request.read()
        self.uploads.append((request.headers.get("authorization", ""), len(body)))
        return web.json_response({"path": request.path_qs, "size": len(body)}, headers={"x-internal": "secret"})


@dataclass
class Pool:
    """Routes are set by the test; demand is kept."""

    routes: Routes
    demands: list[Demand] = field(default_factory=list)

    def app(self) -> web.Application:
        """Return the pool's routes."""
        app = web.Application()
        app.router.add_get("/routes", self.get_routes)
        app.router.add_post("/demand", self.post_demand)
        return app

    async def get_routes(self, request: web.Request) -> web.Response:
        """Wait shortly for newer routes."""
        for _ in range(40):
            if self.routes.version != int(request.query["after"]):
                return message(self.routes)
            await asyncio.sleep(0.02)
        return web.Response(status=204)

    async def post_demand(self, request: web.Request) -> web.Response:
        """Keep one demand message."""
        self.demands.append(loads(Demand, await request.read()))
        return web.Response(status=204)

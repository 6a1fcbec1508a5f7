"""What gateways and `guanmo status` ask the controller over HTTP on loopback; the answers are made elsewhere.

GET /routes?after=VERSION&wait_s=20 -> Routes or 204 · POST /demand Demand -> 204 · GET /status -> status JSON ·
GET /health -> 200
"""

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from serving.contract import CONTRACT_VERSION, ContractError, Demand, encode, loads
from serving.pool.demand import DemandBoard
from serving.pool.routes import RoutesBoard

_MAX_WAIT_S = 30.0


def create_app(
    routes: RoutesBoard, demand: DemandBoard, read_status: Callable[[], Mapping[str, Any]]
) -> web.Application:
    """The controller's HTTP application."""

    async def get_routes(request: web.Request) -> web.Response:
        after = _read_number(request, "after", -1)
        wait_s = min(_read_number(request, "wait_s", 0), _MAX_WAIT_S)
        changed = await routes.wait_for_change(int(after), wait_s)
        return web.Response(status=204) if changed is None else web.json_response(encode(changed))

    async def post_demand(request: web.Request) -> web.Response:
        try:
            demand.record(loads(Demand, await request.read()))
        except ContractError as error:
            raise _refuse(error.code, error.message, error.field) from error
        return web.Response(status=204)

    async def get_status(_request: web.Request) -> web.Response:
        return web.json_response({"contract_version": CONTRACT_VERSION, **read_status()})

    async def get_health(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    app = web.Application(client_max_size=1 << 20)
    app.router.add_get("/routes", get_routes)
    app.router.add_post("/demand", post_demand)
    app.router.add_get("/status", get_status)
    app.router.add_get("/health", get_health)
    return app


def _read_number(request: web.Request, name: str, default: float) -> float:
    text = request.query.get(name)
    try:
        return default if text is None else float(text)
    except ValueError:
        raise _refuse("bad_number", f"{name}={text!r} is not a number", name) from None


def _refuse(code: str, message: str, field: str) -> web.HTTPBadRequest:
    problem = {"code": code, "detail": message, "field": field, "status": 400, "title": "Bad Request"}
    return web.HTTPBadRequest(text=web.json_response(problem).text, content_type="application/problem+json")

"""The background loops: snapshot, routes, demand, usage and closing of slices.

Each loop survives outages of its counterpart and says once when one begins and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from serving.contract import ContractError, Demand
from serving.gateway.engine_client import EngineClient
from serving.gateway.errors import GatewayError
from serving.gateway.fair_share import FairShare
from serving.gateway.hub_client import Hub, HubError
from serving.gateway.pool_client import Pool, PoolError
from serving.gateway.routing import Router
from serving.gateway.settlement import Settlement
from serving.gateway.view import CurrentView, View
from serving.gateway.wallet import Wallet
from serving.gateway.watch import Watch

_EXPECTED = (HubError, PoolError, ContractError, GatewayError)
_MAX_BACKOFF_S = 5.0
DEMAND_S = 1.0
_log = logging.getLogger(__name__)


async def repeat(name: str, step: Callable[[], Awaitable[None]], *, pause_s: float) -> None:
    """Run `step` for ever, `pause_s` apart, backing off up to 5 s while it fails."""
    failures = 0
    while True:
        try:
            await step()
        except _EXPECTED as error:
            failures += 1
            if failures == 1:
                _log.warning("%s: %s", name, error)
            await asyncio.sleep(min(_MAX_BACKOFF_S, 0.2 * 2**failures))
            continue
        if failures:
            _log.warning("%s: works again after %d failures", name, failures)
        failures = 0
        await asyncio.sleep(pause_s)


async def follow_snapshot(hub: Hub, current: CurrentView, watch: Watch) -> None:
    """Poll the snapshot once, take what came and end the calls that it ends: a leaked key gets no text more."""
    try:
        snapshot = await hub.poll_snapshot(current.version)
    except HubError:
        current.miss()
        raise
    if snapshot is None:
        current.confirm()
    else:
        current.replace(View.of(snapshot))
        watch.sweep()


async def follow_routes(pool: Pool, router: Router, fair_share: FairShare, engines: EngineClient) -> None:
    """Poll the routes once and take what came."""
    routes = await pool.poll_routes(router.version)
    if routes is not None:
        router.replace(routes)
        fair_share.look_again({replica.id for replica in routes.replicas})
        engines.keep_only({replica.url for replica in routes.replicas})


async def report_demand(pool: Pool, router: Router, *, gateway_id: str) -> None:
    """Tell the pool controller what is asked for; returns after a second, or as soon as a request begins to wait."""
    await pool.post_demand(Demand(gateway_id=gateway_id, rows=router.demand()))
    router.wanted.clear()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(router.wanted.wait(), DEMAND_S)


async def settle_accounts(
    settlement: Settlement, wallet: Wallet, *, closing: bool = False, hub_answers: bool = True
) -> None:
    """Send usage, then give back finished slices and whatever a former process left."""
    await settlement.send_usage()
    for allowance_id in await settlement.close_allowances(wallet.finished(closing=closing, hub_answers=hub_answers)):
        wallet.drop(allowance_id)
    await settlement.close_inherited()

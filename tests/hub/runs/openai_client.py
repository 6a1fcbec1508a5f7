"""The stock `openai` SDK before the hub's application, and the pool's report that an adapter is ready.

It leaves what is asked and expected to the tests.
"""

import json
from typing import Any

import httpx
import openai
from sqlalchemy import select

from hub.clock import read_clock, to_us
from hub.deployments.tables import Deployment, DeploymentState, ReplicaSet
from hub.organisations.keys import create_key
from serving import contract
from tests.hub.runs.scene import Scene, secrets

BASE_URL = "http://hub.test/v1"


def make_key(scene: Scene, who: str = "factory", **limits: Any) -> str:
    """Return the text of a new API key of somebody."""
    kept = secrets()
    with scene.sessions.write() as session:
        _, text = create_key(
            session,
            scene.actors[who],
            name="sdk",
            pepper=kept["pepper"].encode(),
            pepper_id=kept.fingerprint("pepper"),
            now=read_clock(),
            **limits,
        )
    return text


def make_client(scene: Scene, who: str = "factory", **limits: Any) -> openai.OpenAI:
    """Return the stock client of somebody, without retries, speaking WSGI instead of sockets."""
    transport = httpx.WSGITransport(app=scene.app)
    return openai.OpenAI(
        api_key=make_key(scene, who, **limits),
        base_url=BASE_URL,
        max_retries=0,
        http_client=httpx.Client(transport=transport),
    )


def chat_rows(count: int = 60) -> bytes:
    """Return JSON lines as OpenAI's guide shows them."""
    rows = [
        {
            "messages": [
                {"role": "system", "content": "You read work orders."},
                {"role": "user", "content": f"Pump {number} leaks at seal {number % 7}"},
                {"role": "assistant", "content": f"Replace seal {number % 7} of pump {number}"},
            ]
        }
        for number in range(count)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def report_ready(scene: Scene) -> None:
    """Report, as the pool controller does, that every wanted adapter is ready."""
    leader = scene.internal("POST", "pool/lead", "pool", json={"controller_id": "c", "contract_version": 1}).json
    assert leader is not None, leader
    with scene.sessions.read() as session:
        found = session.execute(
            select(Deployment, ReplicaSet)
            .join(ReplicaSet, ReplicaSet.id == Deployment.set_id)
            .where(Deployment.state == DeploymentState.WANTED)
        ).all()
    now = to_us(read_clock())
    replicas = {
        row.id: contract.ObservedReplica(
            replica_id=f"rep_{row.id}",
            replica_epoch=1,
            set_id=row.id,
            slot_id="slo_x",
            allocation_epoch=1,
            url="http://127.0.0.1:9",
            state=contract.ReplicaState.READY,
            reason_code=None,
            since_at=now,
            device_ms=1,
        )
        for _, row in found
    }
    adapters = tuple(
        contract.ObservedAdapter(
            digest=deployment.digest,
            ready_on=(f"rep_{row.id}",),
            state=contract.AdapterState.READY,
            reason_code=None,
        )
        for deployment, row in found
        if deployment.digest != row.base_digest
    )
    message = contract.Observed(
        epoch=leader["epoch"],
        generation_seen=1,
        replicas=tuple(replicas.values()),
        adapters=adapters,
        wants=(),
    )
    answer = scene.internal("PUT", "pool/observed", "pool", json=contract.encode(message))
    assert answer.status_code == 200, answer.json

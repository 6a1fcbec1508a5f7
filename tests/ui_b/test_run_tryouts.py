"""Trying a run's evaluated checkpoints out on its page: loaded on a wish, waited for, asked beside the base."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import select

from hub.deployments.tables import Deployment, DeploymentState
from tests.hub.runs.scene import run_until
from tests.ui.twin_gateway import TwinGateway, run_gateway
from tests.ui.world import World
from tests.ui_b.scene import finish_run, make_worker, order_run, plan_run


@pytest.fixture
def twin(market: World) -> Iterator[TwinGateway]:
    """A gateway's twin that the changing marketplace calls meanwhile."""
    context = market.app.extensions["guanmo"]
    with run_gateway() as made:
        settings = replace(context.settings, gateway_port=made.port)
        market.app.extensions["guanmo"] = replace(context, settings=settings)
        yield made
    market.app.extensions["guanmo"] = context


@pytest.fixture(scope="module")
def trained(market: World, data: str) -> str:
    """A run with checkpoints of steps 2 and 4."""
    client = market.visit("factory")
    fields = {"recipe-epochs": "4", "recipe-validations": "2"}
    run_id = plan_run(market, client, data, name="tried", **fields)
    order_run(market, client, run_id)
    finish_run(market, client, run_id)
    return run_id


def list_open(world: World) -> list[Deployment]:
    with world.sessions.read() as session:
        query = select(Deployment).where(Deployment.until_at.is_not(None), Deployment.state != DeploymentState.STOPPED)
        return list(session.scalars(query))


def report(world: World, state: DeploymentState) -> None:
    """Say what the pool would say of every deployment."""
    with world.sessions.write() as session:
        for row in session.scalars(select(Deployment).where(Deployment.state != DeploymentState.STOPPED)):
            row.state, row.ready_at = state, world.now


def test_a_checkpoint_is_loaded_waited_for_and_asked_beside_its_base(
    market: World, trained: str, twin: TwinGateway
) -> None:
    client = market.visit("factory")
    path = f"/runs/{trained}"
    assert 'data-url="/tryout"' not in client.get(path).text
    sent = client.post(f"{path}/tryouts", data={"step": "2"})
    assert (sent.status_code, sent.headers["Location"]) == (302, f"{path}?step=2#try")
    waiting = client.get(f"{path}?step=2").text
    assert "Waits for an engine" in waiting
    assert "Loading the checkpoint of step 2" in waiting
    assert f'hx-get="{path}?step=2" hx-trigger="every 2s"' in waiting
    run_until(make_worker(market), lambda: list_open(market) != [])
    assert "Loading the checkpoint of step 2" in client.get(f"{path}?step=2").text
    report(market, DeploymentState.READY)
    ready = client.get(f"{path}?step=2").text
    assert "every 2s" not in ready
    assert "Answers" in ready
    (name,) = [row.public_name for row in list_open(market)]
    assert f'data-model="{name}"' in ready
    assert 'data-model="guanmo/demo-zh@1"' in ready
    answered = client.post(f"{path}/try?step=2", data={"message": "spindle hot", "model": ["guanmo/demo-zh@1", name]})
    assert answered.status_code == 200
    for model in ("guanmo/demo-zh@1", name):
        assert f"overheats [{model.partition('/')[2]}]" in answered.text
    assert answered.text.count("AI-generated content") == 2
    empty = client.post(f"{path}/try?step=2", data={"message": " ", "model": [name]})
    assert empty.status_code == 422
    assert "The message has 0 characters" in empty.text
    report(market, DeploymentState.FAILED)
    failed = client.get(f"{path}?step=2").text
    assert "being retried" in failed
    assert "Loading the checkpoint of step 2 failed; it is tried again by itself" in failed


def test_only_its_own_firm_loads_one_and_only_evaluated_steps(market: World, trained: str) -> None:
    path = f"/runs/{trained}/tryouts"
    assert market.visit("factory").post(path, data={"step": "3"}).status_code == 404
    for who in ("operator", "developer", "auditor"):
        assert market.visit(who).post(path, data={"step": "2"}).status_code in (403, 404), who

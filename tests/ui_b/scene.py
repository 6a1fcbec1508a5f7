"""The marketplace of `tests.ui.world` with a worker driven by hand, and the steps of a run as a browser takes them.

Also run by hand: `python -m tests.ui_b.scene FOLDER PORT` serves it with a run in each state for a look.
"""

import io
import re
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from flask.testing import FlaskClient

from hub.catalogue.registration import register_version
from hub.catalogue.service import price_of, submit_version
from hub.catalogue.tables import ModelVersion
from hub.clock import to_us
from hub.jobs.loop import JobLoop, Kind
from hub.metering.witness import take_witness
from hub.orders.service import grant_allowance
from hub.organisations.rules import make_demo_uscc
from hub.secrets import read_secrets
from hub.settings import Settings
from hub.tuning.kinds import GATE_KIND
from hub.worker import list_kinds, list_lanes
from serving.contract import AllowanceGrant, AllowanceRequest, EngineReading, Witness, WitnessBatch
from tests.hub.runs.scene import gate_by_trainer, hurry, make_work, run_until, sound_rows
from tests.ui.world import World, build_world

WARNED = b"question,answer,extra\n" + b"".join(b"pump %d leaks,replace seal %d,x\n" % (n, n) for n in range(40))
BROKEN = b'{"messages": [{"role": "user", "content": "q"}]}\nnot json\n{"prompt": "p"}\n'
ODD_COLUMNS = "甲,乙\n".encode() + b"".join(f"泵{n}漏油,更换{n}号密封\n".encode() for n in range(40))


def make_worker(world: World) -> JobLoop:
    """Return a worker on the world's database, with the twin as trainer."""
    settings = Settings(home=world.home, database_url=f"sqlite:///{world.home / 'hub.sqlite3'}")
    kinds = list_kinds(settings, read_secrets(world.home)) | {GATE_KIND: Kind(gate_by_trainer, "beside")}
    return JobLoop(make_work(settings, world.sessions), "w1", hurry(kinds), list_lanes(2))


def upload(client: FlaskClient, content: bytes, file_name: str, name: str = "") -> str:
    """Upload a file on the page and return the data set's id."""
    form = {"file": (io.BytesIO(content), file_name), "name": name}
    answer = client.post("/datasets", data=form, content_type="multipart/form-data")
    assert answer.status_code == 302, answer.text
    return id_in(answer.headers["Location"], "dst")


def id_in(text: str, prefix: str) -> str:
    """Return the first id of a kind in a text."""
    found = re.search(rf"{prefix}_[0-9a-f]{{32}}", text)
    assert found, text[:400]
    return found[0]


def work_until(world: World, client: FlaskClient, path: str, done: Callable[[str], bool]) -> str:
    """Let a worker work until a page says so; returns the page."""
    run_until(make_worker(world), lambda: done(client.get(path).text))
    return client.get(path).text


def add_data(world: World, client: FlaskClient, content: bytes | None = None, file_name: str = "rows.jsonl") -> str:
    """Upload, check and acknowledge; returns the data set's id."""
    dataset_id = upload(client, content or sound_rows(), file_name)
    page = work_until(world, client, f"/datasets/{dataset_id}", lambda text: "every 2s" not in text)
    if f"/datasets/{dataset_id}/acknowledge" in page:
        assert client.post(f"/datasets/{dataset_id}/acknowledge").status_code == 302
    return dataset_id


def lose_gateway(world: World) -> str:
    """Let a gateway disappear with an allowance, while its engine counted a call on it; returns the allowance's id."""
    then, version = world.now - timedelta(minutes=20), world.versions["demo-zh"]
    with world.sessions.write() as session:
        price = price_of(session, version, world.now)
        assert price is not None
        owner = world.actors["factory"].organisation_id
        wanted = AllowanceRequest("gw_lost", 1, "draw-1", owner, None, price.id, 5_000_000)
        granted = grant_allowance(session, wanted, then)
        assert isinstance(granted, AllowanceGrant)
        call = Witness("rep_lost", 1, 1, "req_lost", 1, 40, 60, 40, 0, granted.allowance_id, "key_1", version.id)
        reading = EngineReading("rep_lost", 1, 1, 40, 63, to_us(then))
        take_witness(session, WitnessBatch((call,), (reading,)), then)
    return granted.allowance_id


def plan_run(world: World, client: FlaskClient, data: str, base: str = "guanmo/demo-zh", **fields: str) -> str:
    """Send the wizard's last form and wait for the plan; returns the run's id."""
    form = {"base": base, "data": data, "name": "orders", **fields}
    answer = client.post("/runs/new", data=form)
    assert answer.status_code == 302, answer.text
    run_id = id_in(answer.headers["Location"], "run")
    work_until(world, client, f"/runs/{run_id}", lambda text: "every 2s" not in text)
    return run_id


def order_run(world: World, client: FlaskClient, run_id: str) -> None:
    """Take the first offer, ask for the quote and accept it."""
    offer = id_in(client.get(f"/runs/{run_id}").text, "off")
    quoted = client.post(f"/runs/{run_id}/quote", data={"offer_id": offer})
    assert quoted.status_code == 302, quoted.text
    quote = id_in(client.get(f"/runs/{run_id}").text, "quo")
    accepted = client.post(f"/runs/{run_id}/accept", data={"quote_id": quote})
    assert accepted.status_code == 302, accepted.text


def finish_run(world: World, client: FlaskClient, run_id: str) -> str:
    """Let the worker train it to its end; returns the page."""
    return work_until(world, client, f"/runs/{run_id}", lambda text: 'data-over="yes"' in text)


def show_everything(world: World) -> dict[str, str]:
    """Fill the world with a record of each kind; returns ids by name for a look in the browser."""
    client = world.visit("factory", "zh")
    shown = {"ready": add_data(world, client)}
    for name, content, file_name in (("warned", WARNED, "warned.csv"), ("broken", BROKEN, "broken.jsonl")):
        shown[name] = upload(client, content, file_name)
        work_until(world, client, f"/datasets/{shown[name]}", lambda text: "every 2s" not in text)
    shown["columns"] = upload(client, ODD_COLUMNS, "工单.csv")
    work_until(world, client, f"/datasets/{shown['columns']}", lambda text: "every 2s" not in text)
    shown["planned"] = plan_run(world, client, shown["ready"], name="planned")
    shown["done"] = plan_run(world, client, shown["ready"], **{"recipe-epochs": "50", "recipe-validations": "5"})
    order_run(world, client, shown["done"])
    finish_run(world, client, shown["done"])
    shown["failed"] = plan_run(world, client, shown["ready"], name="failed", **{"recipe-validations": "13"})
    order_run(world, client, shown["failed"])
    finish_run(world, client, shown["failed"])
    shown["quoted"] = plan_run(world, client, shown["ready"], name="quoted", **{"recipe-epochs": "50"})
    offer = id_in(client.get(f"/runs/{shown['quoted']}").text, "off")
    client.post(f"/runs/{shown['quoted']}/quote", data={"offer_id": offer})
    shown["review"] = submit_adapter(world).id
    shown["application"] = apply(world.visit("developer"))
    register(world)
    return shown


def submit_adapter(world: World) -> ModelVersion:
    """Put an adapter of the integrator into review."""
    integrator = world.actors["integrator"]
    with world.sessions.write() as session:
        version = register_version(
            session,
            organisation_id=integrator.organisation_id,
            model_name="inspection",
            base_version_id=world.versions["demo-zh"].id,
            artifact_digest="9" * 64,
            artifact_uri="file:///9",
            run_id=None,
            rank=8,
            metrics={},
            lineage={},
            size_bytes=52_000,
            now=world.now,
            created_by=integrator.user_id,
        )
        return submit_version(session, integrator, version.id, now=world.now)


def apply(client: FlaskClient, programme: str = "model", contract: str = "C-77", **files: bytes) -> str:
    """Apply for a voucher on the page and return the application's id."""
    papers = {
        f"paper_{kind}": (io.BytesIO(body), f"{kind}.txt") for kind, body in ({"contract": b"signed"} | files).items()
    }
    form = {"programme": programme, "asked_fen": "20000", "contract_no": contract, **papers}
    answer = client.post("/vouchers/apply", data=form, content_type="multipart/form-data")
    assert answer.status_code == 302, answer.text
    return id_in(client.get("/vouchers").text, "app")


def register(world: World, uscc: str = "") -> None:
    """Sign a new factory up, which then waits to be verified."""
    form = {
        "kind": "factory",
        "name": "演示新注册工厂",
        "uscc": uscc or make_demo_uscc(50_321),
        "person": "张工",
        "email": "new@demo.guanmo.example",
        "password": "correct horse 42",
    }
    assert world.visit().post("/sign-up", data=form).status_code == 302


def _serve(folder: Path, port: int) -> None:
    from werkzeug.serving import run_simple

    folder.mkdir(parents=True, exist_ok=True)
    world = build_world(folder)
    for name, key in show_everything(world).items():
        sys.stdout.write(f"{name}={key}\n")
    threading.Thread(target=_work_on, args=(world,), daemon=True).start()
    sys.stdout.flush()
    run_simple("127.0.0.1", port, world.app, threaded=True)


def _work_on(world: World) -> None:
    worker = make_worker(world)
    while True:
        worker.tick()
        time.sleep(0.2)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))

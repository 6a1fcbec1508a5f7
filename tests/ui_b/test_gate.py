"""What the publish gate found on a run's page: figures with units, cases, a held run measured again or published."""

import csv
import io
import json
from typing import Any

import pytest
from sqlalchemy import select

from hub.jobs.tables import Job
from hub.tuning.examining import CASES_NAME
from hub.tuning.progress import locate_run
from hub.tuning.publishing import quarantine_candidate
from hub.tuning.tables import Run
from tests.hub.runs.scene import run_until
from tests.ui.world import World
from tests.ui_b.scene import finish_run, make_worker, order_run, plan_run

CASES = [
    {"question": "Pump 1", "expected": "seal", "base": "?", "adapter": "seal"},
    {"question": "=cmd()", "expected": "seal", "base": "seal", "adapter": "oil"},
    {"question": "泵 3", "expected": "密封", "base": "密封", "adapter": "密封"},
]
UNMEASURED = {"passed": False, "code": "gate_not_measured", "why": "no_room", "reason": "no room for an engine"}
REASON = "only the spelling of part numbers matters here"


def hold(market: World, data: str, name: str, **gate: Any) -> str:
    """Have a run held back by the gate, then let the gate read as given; returns the run's id."""
    client = market.visit("factory")
    run_id = plan_run(market, client, data, name=name, **{"recipe-min_delta": "0.1"})
    order_run(market, client, run_id)
    finish_run(market, client, run_id)
    if gate:
        with market.sessions.write() as session:
            run = session.get_one(Run, run_id)
            run.gate, run.reason_code = {"rule": "serving_engine"} | gate, gate["code"]
    return run_id


def test_a_refused_override_keeps_what_was_typed_beside_its_message(market: World, data: str) -> None:
    client, run_id = market.visit("factory"), hold(market, data, "typed")
    path = f"/runs/{run_id}"
    answer = client.post(f"{path}/publish", data={"reason": "too short"})
    assert answer.status_code == 422
    assert '<div class="field-error" id="e-reason">The reason has 9 characters' in answer.text
    assert ">too short</textarea>" in answer.text
    empty = client.post(f"{path}/publish", data={"reason": " " * 12})
    assert (empty.status_code, "Please fill this in" in empty.text) == (422, True)
    assert market.visit("developer").post(f"{path}/publish", data={"reason": REASON}).status_code == 404


def test_who_published_past_the_gate_and_why_stand_on_the_page(market: World, data: str) -> None:
    client, run_id = market.visit("factory"), hold(market, data, "forced")
    path = f"/runs/{run_id}"
    assert "Done, version held back" in client.get(path).text
    sent = client.post(f"{path}/publish", data={"reason": REASON})
    assert (sent.status_code, sent.headers["Location"]) == (302, f"{path}?done=published")
    for who in ("factory", "operator"):
        page = market.visit(who).get(f"{path}?done=published").text
        for text in (
            "Your reason is recorded",
            "Published by ",
            REASON,
            "Done, published later",
            "a person published it",
        ):
            assert text in page, text
        assert "Publish past the gate</button>" not in page
    assert "Done, published later" in client.get("/runs").text
    assert 'action="/endpoints/deploy"' in client.get(path).text
    later = client.post(f"{path}/publish", data={"reason": REASON})
    assert later.status_code == 302, "again changes nothing"


def test_a_run_that_was_not_measured_says_why_and_shows_that_it_is_asked_again(market: World, data: str) -> None:
    client, run_id = market.visit("factory"), hold(market, data, "unmeasured", **UNMEASURED)
    path = f"/runs/{run_id}"
    page = client.get(path).text
    for text in ("No machine had room for one more engine", "It could not be measured", f'action="{path}/measure"'):
        assert text in page, text
    assert "every 3s" not in page
    assert "当时没有机器能再启动一个评测引擎" in market.visit("factory", "zh").get(path).text
    sent = client.post(f"{path}/measure")
    assert (sent.status_code, sent.headers["Location"]) == (302, f"{path}?done=measuring")
    page = client.get(f"{path}?done=measuring").text
    for text in ("It is being measured again", "Being measured again", 'hx-trigger="every 3s" hx-select="#run-gate"'):
        assert text in page, text
    assert f'action="{path}/measure"' not in page
    assert f'action="{path}/publish"' not in page, "nothing that is typed is swapped away"
    assert "Measuring again was asked for" in page
    assert client.post(f"{path}/measure").status_code == 302
    with market.sessions.read() as session:
        assert len(session.scalars(select(Job).where(Job.kind == "run.gate", Job.subject == run_id)).all()) == 2
    run_until(make_worker(market), lambda: "Measured again" in client.get(path).text)
    page = client.get(f"{path}?done=measuring").text
    assert "It is being measured again" not in page, "a notice that is over"
    assert "every 3s" not in page
    assert f'action="{path}/publish"' in page


def test_a_pass_after_measuring_again_reads_as_published(market: World, data: str) -> None:
    client, run_id = market.visit("factory"), hold(market, data, "passed", **UNMEASURED)
    with market.sessions.write() as session:
        run = session.get_one(Run, run_id)
        metrics = json.loads(json.dumps(run.metrics))
        metrics["adapter"]["loss"] = 0.5
        run.metrics = metrics
    assert client.post(f"/runs/{run_id}/measure").status_code == 302
    run_until(make_worker(market), lambda: "Model page" in client.get(f"/runs/{run_id}").text)
    page = client.get(f"/runs/{run_id}").text
    for text in ("Done, published later", "measured again, passed and was published"):
        assert text in page, text
    for text in ("gate_not_measured", "No machine had room"):
        assert text not in page, text


@pytest.mark.parametrize(
    ("code", "value", "limit", "told"),
    [
        ("loss_lower", 0.25, 1e-6, "(-0.2500 nats a token; must be below 0)"),
        ("exact_match_not_worse", -0.0125, -0.01, "(-1.25 points, at least -1.00)"),
        ("answers_whole", -0.025, -0.02, "(2.50 %, at most 2.00 %)"),
        ("answers_whole", -0.0, -0.01, "(0.00 %, at most 1.00 %)"),
        ("nothing_forgotten_by_loss", -0.06, -0.05, "(6.00 %, at most 5.00 %)"),
    ],
)
def test_rules_are_told_with_their_units(
    market: World, data: str, code: str, value: float, limit: float, told: str
) -> None:
    client, run_id = market.visit("factory"), held_once(market, data)
    rule = {"code": code, "value": value, "limit": limit, "passed": value >= limit}
    with market.sessions.write() as session:
        run = session.get_one(Run, run_id)
        run.gate = {"rule": "serving_engine", "passed": False, "code": "gate_regression", "rules": [rule]}
    page = client.get(f"/runs/{run_id}").text
    assert told in page
    assert ("not met" in page) == (value < limit)


def held_once(market: World, data: str) -> str:
    """The id of one held run that some tests share; each writes the gate it looks at."""
    found = list_named(market, "demo-precision/shared")
    return found[0] if found else hold(market, data, "shared")


def list_named(market: World, name: str) -> list[str]:
    with market.sessions.read() as session:
        return list(session.scalars(select(Run.id).where(Run.model_name == name)))


def test_cases_tell_what_changed_and_come_as_a_file_for_a_spreadsheet(market: World, data: str) -> None:
    run_id = held_once(market, data)
    (locate_run(market.home, run_id) / CASES_NAME).write_text(json.dumps(CASES))
    page = market.visit("factory").get(f"/runs/{run_id}").text
    for text in ("Now right", "Now wrong", "Both right", "The first 3 rows", f'href="/runs/{run_id}/cases.csv"'):
        assert text in page, text
    answer = market.visit("factory").get(f"/runs/{run_id}/cases.csv")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "private, no-store")
    rows = list(csv.reader(io.StringIO(answer.data.decode("utf-8-sig"))))
    assert rows == [
        ["question", "expected", "base", "new model", "change"],
        ["Pump 1", "seal", "?", "seal", "Now right"],
        ["'=cmd()", "seal", "seal", "oil", "Now wrong"],
        ["泵 3", "密封", "密封", "密封", "Both right"],
    ]
    assert answer.data.startswith(b"\xef\xbb\xbf")
    assert "改对" in market.visit("factory", "zh").get(f"/runs/{run_id}/cases.csv").text
    for who in ("operator", "auditor", "developer"):
        assert market.visit(who).get(f"/runs/{run_id}/cases.csv").status_code in (403, 404), who


def test_a_quarantined_version_is_not_offered_for_deployment(market: World, data: str) -> None:
    client = market.visit("factory")
    run_id = plan_run(market, client, data, name="apart")
    order_run(market, client, run_id)
    page = finish_run(market, client, run_id)
    assert 'action="/endpoints/deploy"' in page
    with market.sessions.write() as session:
        quarantine_candidate(session, session.get_one(Run, run_id), "adapter_differs", now=market.now)
    page = client.get(f"/runs/{run_id}").text
    assert 'action="/endpoints/deploy"' not in page
    assert "Quarantined" in page


def test_a_run_that_was_refuted_later_does_not_read_as_passed(market: World, data: str) -> None:
    run_id = held_once(market, data)
    proof = {"passed": True, "code": "proven", "base_error": 0.01, "adapter_error": 0.02, "trained_effect": 2.0}
    proof |= {"served_effect": 2.0, "tolerance": 0.1, "rows": 16}
    gate = {"rule": "serving_engine", "passed": True, "code": "passed", "parity": proof}
    for code, refuted in (("adapter_not_loaded", True), ("not_measured", False)):
        with market.sessions.write() as session:
            session.get_one(Run, run_id).gate = gate | {"served": {"passed": False, "code": code}}
        page = market.visit("factory").get(f"/runs/{run_id}").text
        assert (">Quarantined</span>" in page, ">Passed</span>" in page) == (refuted, not refuted), code


def test_figures_of_the_gate_have_units_and_a_gain_is_the_better(market: World, data: str) -> None:
    run_id = held_once(market, data)
    figure = {"base": 0.25, "adapter": 0.75, "gain_low": 0.4, "gain_high": 0.6}
    broken = {"base": 0.1, "adapter": 0.0, "gain_low": -0.2, "gain_high": -0.0}
    scores = {"n": 40, "loss": figure, "exact_match": figure, "broken": broken}
    rule = {"code": "loss_lower", "value": 1.0, "limit": 1e-6, "passed": True}
    gate = {"rule": "serving_engine", "passed": True, "code": "passed", "rules": [rule], "scores": scores}
    with market.sessions.write() as session:
        session.get_one(Run, run_id).gate = gate
    page = market.visit("factory").get(f"/runs/{run_id}").text
    for text in (
        'Held-out loss<span class="sub">nats a token</span>',
        '+40.0 … +60.0<span class="sub">points</span>',
        '+0.0 … +20.0<span class="sub">points</span>',
        "+0.4000 … +0.6000</td>",
    ):
        assert text in page, text


def test_a_runs_page_leads_to_its_data(market: World, data: str) -> None:
    page = market.visit("factory").get(f"/runs/{held_once(market, data)}").text
    assert f'href="/datasets/{data}?version=1"' in page
    assert "nats, lower is better" in page

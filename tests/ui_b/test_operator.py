"""The operator's desk: queues, decisions, deposits, prices, the pool; the auditor reads, others stay out."""

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from hub.catalogue.tables import ModelVersion
from hub.compute.tables import Node
from tests.gateway.world import free_port
from tests.ui.world import World, copy_world
from tests.ui_b.conftest import Shop
from tests.ui_b.scene import lose_gateway, register, submit_adapter

PLACES = ("/operator", "/operator/organisations", "/operator/money", "/operator/pool", "/operator/meters")


@pytest.mark.parametrize("who", ["factory", "integrator", "developer", "provider"])
def test_others_stay_out(shop: Shop, who: str) -> None:
    client = shop.world.visit(who)
    firm = shop.world.actors["factory"].organisation_id
    places = (*PLACES, f"/operator/versions/{shop.shown['review']}")
    assert {client.get(path).status_code for path in places} == {403}
    posts = (
        f"/operator/organisations/{firm}/verify",
        f"/operator/organisations/{firm}/suspend",
        "/operator/deposits",
        "/operator/allowances/alw_1/close",
        "/operator/prices/base",
        f"/operator/versions/{shop.shown['review']}",
    )
    assert {client.post(path, data={"reason": "x"}).status_code for path in posts} == {403}


def test_auditor_reads_all_and_is_offered_no_form(shop: Shop) -> None:
    auditor = shop.world.visit("auditor")
    for path in (*PLACES, f"/operator/versions/{shop.shown['review']}"):
        page = auditor.get(path).text
        assert page.count('method="post"') == 1, path  # signing out
    assert "reads everything and changes nothing" in auditor.get("/operator").text
    assert auditor.post("/operator/deposits", data={}).status_code == 403


def test_desk_lists_what_waits_and_counts_records(shop: Shop) -> None:
    page = shop.world.visit("operator").get("/operator").text
    assert "演示新注册工厂" in page
    assert "demo-integrator/inspection@1" in page
    assert "演示开发者工作室" in page
    figures = dict(re.findall(r'<div class="tile"><dt>([^<]+)</dt><dd>([^<]+)', page))
    assert figures["Base models"] == "2"
    assert figures["Runs ordered"] == "2"
    assert figures["Hosted calls"] == "3"
    assert figures["Vouchers awarded"] == "¥200,000.00"
    assert "待核验机构" in shop.world.visit("operator", "zh").get("/operator").text


def test_verify_and_suspend_with_a_reason(market: World) -> None:
    register(market)
    operator = market.visit("operator")
    page = operator.get("/operator/organisations").text
    row = page.partition("演示新注册工厂")[2].partition("</tr>")[0]
    address = row.partition('action="')[2].partition('/verify"')[0]
    assert operator.post(f"{address}/verify").status_code == 302
    assert operator.post(f"{address}/suspend", data={"reason": ""}).status_code == 422
    assert operator.post(f"{address}/suspend", data={"reason": "wrong licence"}).status_code == 302
    assert "Suspended" in operator.get("/operator/organisations").text


def test_review_needs_reason_and_ruling_then_lists(market: World) -> None:
    version = submit_adapter(market)
    path = f"/operator/versions/{version.id}"
    operator = market.visit("operator")
    missing = operator.post(path, data={"decision": "approve", "reason": ""})
    assert missing.status_code == 422
    assert 'id="e-reason"' in missing.text
    assert 'value="approve" checked' in missing.text
    unruled = operator.post(path, data={"decision": "approve", "reason": "good"})
    assert 'id="e-ruling"' in unruled.text
    sound = {"decision": "approve", "reason": "good scores", "ruling": "not_applicable"}
    assert operator.post(path, data=sound).headers["Location"] == "/operator?done=reviewed"
    assert market.visit().get("/models/demo-integrator/inspection").status_code == 200
    assert "good scores" in operator.get(path).text


def test_deposit_keeps_what_was_typed_and_books_once(market: World) -> None:
    operator, firm = market.visit("operator"), market.actors["developer"].organisation_id
    bad = operator.post("/operator/deposits", data={"organisation_id": firm, "amount_fen": "abc", "reference": "B-9"})
    assert bad.status_code == 422
    assert 'value="abc"' in bad.text
    assert 'value="B-9"' in bad.text
    assert f'value="{firm}" selected' in bad.text
    sound = {"organisation_id": firm, "amount_fen": "1,234.50", "reference": "B-9"}
    for _ in range(2):
        assert operator.post("/operator/deposits", data=sound).status_code == 302
    assert operator.get("/operator/money").text.count("¥1,234.50") == 1
    again = operator.post("/operator/deposits", data=sound | {"amount_fen": "1"})
    assert again.status_code == 422


def test_prices_are_published_as_a_new_version(market: World) -> None:
    operator = market.visit("operator", "zh")
    missing = operator.post("/operator/prices/base", data={"base-prompt": "3"})
    assert missing.status_code == 422
    assert 'value="3"' in missing.text
    sound = {"base-prompt": "3.50", "base-cached": "", "base-completion": "7"}
    assert operator.post("/operator/prices/base", data=sound).status_code == 302
    assert "¥3.5</strong>" in operator.get("/operator/money").text


def test_pool_page_says_what_is_not_there_yet(market: World) -> None:
    page = market.visit("operator", "zh").get("/operator/pool").text
    assert "没有引擎在运行" in page
    assert "here" in page


def test_pool_page_shows_the_gateways_load(market: World, tmp_path: Path) -> None:
    port = free_port()
    market = copy_world(market, tmp_path / "home", gateway_port=port - 1)
    assert "No gateway of this machine answers" in market.visit("operator").get("/operator/pool").text
    tuned = {"base": "b" * 12, "adapter": "lora-77"}
    samples = [
        {"name": name, "labels": labels, "value": value}
        for name, labels, value in (
            ("running", tuned, 3),
            ("waiting", tuned, 2),
            ("queue_wait_seconds", tuned, 1.25),
            ("tokens_per_second", tuned, 41.5),
            ("tokens_per_second", tuned, 0.5),
            ("turns_waiting", {}, 4),
            ("calls_total", tuned, 9),
        )
    ]
    with answering(port, {"samples": samples}):
        page = market.visit("operator").get("/operator/pool").text
        chinese = market.visit("operator", "zh").get("/operator/pool").text
    row = re.search(r"<tr><td[^>]*><code[^>]*>b{12}.*?lora-77.*?</tr>", page, re.DOTALL)
    assert row is not None
    assert re.findall(r'class="number"[^>]*>([^<]*)<', row.group()) == ["3", "2", "1.2 s", "42.0"]
    assert "waiting for a turn 4" in page
    assert "负载" in chinese


@contextlib.contextmanager
def answering(port: int, body: dict[str, Any]) -> Iterator[None]:
    """Answer every GET on a port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_token_meters_show_each_engine_and_close_a_lost_gateways_allowance(market: World) -> None:
    allowance_id = lose_gateway(market)
    operator = market.visit("operator")
    page = operator.get("/operator/meters").text
    assert "rep_lost" in page
    assert "Counters and witness differ" in page
    assert "1 calls" in page
    assert "引擎计数与见证不符" in market.visit("operator", "zh").get("/operator/meters").text
    refused = operator.post(f"/operator/allowances/{allowance_id}/close", data={"reason": " "})
    assert refused.status_code == 422
    closed = operator.post(f"/operator/allowances/{allowance_id}/close", data={"reason": "host burnt"})
    assert (closed.status_code, closed.location) == (302, "/operator/meters?done=closed")
    assert allowance_id not in operator.get("/operator/meters").text


def test_the_operator_sets_how_a_base_scales_and_the_auditor_reads_it(market: World) -> None:
    with market.sessions.write() as session:
        base = session.query(ModelVersion).where(ModelVersion.base_version_id.is_(None)).first()
        assert base is not None
        base_id = base.id
    operator = market.visit("operator")
    typed = {"base": base_id, "min": "0", "max": "3", "idle_s": "120", "max_loras": "16"}
    assert operator.post("/operator/pool/policy", data=typed).location == "/operator/pool?done=policy"
    page = operator.get("/operator/pool?done=policy").text
    assert "Set how a base scales" in page
    assert 'value="120"' in page
    refused = operator.post("/operator/pool/policy", data=typed | {"min": "9"})
    assert (refused.status_code, 'value="9"' in refused.text) == (422, True)
    assert "above" in refused.text
    blank = operator.post("/operator/pool/policy", data=typed | {"max": ""})
    assert blank.status_code == 422
    auditor = market.visit("auditor", "zh").get("/operator/pool").text
    assert "扩缩容" in auditor
    assert "/operator/pool/policy" not in auditor


def test_the_operator_empties_a_machine_and_takes_it_back(market: World) -> None:
    with market.sessions.read() as session:
        node_id = session.scalars(select(Node.id).where(Node.name == "here")).one()
    operator = market.visit("operator")
    assert "Back in service" not in operator.get("/operator/pool").text
    assert "calls fail from a minute before the time" in operator.get("/operator/pool").text
    typed = {"node": node_id, "minutes": "1"}
    refused = operator.post("/operator/pool/maintenance", data=typed)
    assert (refused.status_code, 'value="1"' in refused.text) == (422, True)
    assert operator.post("/operator/pool/maintenance", data={"node": "nod_x", "minutes": "5"}).status_code == 422
    begun = operator.post("/operator/pool/maintenance", data=typed | {"minutes": "5"})
    assert begun.location == "/operator/pool?done=maintenance"
    assert "Back in service" in operator.get("/operator/pool?done=maintenance").text
    assert "开始维护" not in market.visit("auditor", "zh").get("/operator/pool").text
    ended = operator.post(f"/operator/pool/maintenance/{node_id}/end")
    assert ended.location == "/operator/pool?done=service"
    assert "Back in service" not in operator.get("/operator/pool").text

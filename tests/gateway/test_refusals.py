"""Every code that the gateway refuses with: those of a limit name it, who set it, used, left and when it resets."""

import ast
import asyncio
import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from serving.contract import RouteReplica, Routes
from serving.gateway import dispatch, exchange, replays
from serving.gateway.body_budget import BodyBudget
from serving.gateway.connection import MAX_HEADERS, ClientConnection
from serving.gateway.dispatch import Dispatcher
from serving.gateway.errors import GatewayError
from serving.gateway.exchange import Exchange
from serving.gateway.limits import RateLimits
from serving.gateway.routing import MAX_QUEUED, MAX_QUEUED_PER_MODEL, Router
from serving.gateway.shared_table import Row, SharedTable, TableFullError
from serving.gateway.surfaces import CHAT
from serving.gateway.watch import Deadlines, Watch
from tests.gateway.samples import ADAPTER, BASE, make_key, make_model
from tests.gateway.test_fair_share import REPLICA, Stage
from tests.gateway.test_rules import Time, resolve_target, view_of
from tests.gateway.test_wallet import PRICES, Bank

ROOT = Path(__file__).parents[2]
NOTHING: Any = None


class FullTable(SharedTable):
    """A table without a free row."""

    def lock(self, name: str, now_s: float) -> Row:
        raise TableFullError("more than 8192 keys and firms are active; that is the limit")


class Pipe(asyncio.Transport):
    """Keeps what a connection says; feeds an exchange that nobody listens to."""

    client_ip = ""
    writable = True

    def __init__(self) -> None:
        super().__init__()
        self.said = b""

    def write(self, data: Any) -> None:
        self.said += bytes(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def is_closing(self) -> bool:
        return False

    def flow(self, _exchange: Exchange, *, reading: bool) -> None: ...
    def finish(self, _exchange: Exchange) -> None: ...


def raised(call: Callable[[], Any]) -> GatewayError:
    async def run() -> None:
        result = call()
        if asyncio.iscoroutine(result):
            await result

    with pytest.raises(GatewayError) as refused:
        asyncio.run(run())
    return refused.value


def exceed_rate(**limit: int) -> GatewayError:
    limits = RateLimits(Time().clock)
    limits.enter(make_key(1, **limit), 1)
    return raised(lambda: limits.enter(make_key(1, **limit), 1))


def fill_queue(per_model: int) -> GatewayError:
    router = Router(Time().clock)
    view = view_of(*(make_model(f"org/m{number}", f"{number:064x}") for number in range(9)))
    with ExitStack() as stack:
        for number in range(MAX_QUEUED):
            target = resolve_target(view, make_key(1), f"org/m{number // per_model}", session="r", now_us=1)
            if number and number % per_model == 0 and per_model == MAX_QUEUED_PER_MODEL:
                break
            stack.enter_context(router.queued(target))
        target = resolve_target(view, make_key(1), f"org/m{0 if per_model == 256 else 8}", session="r", now_us=1)
        return raised(lambda: stack.enter_context(router.queued(target)))


async def wait_for_turn() -> None:
    stage = Stage(per_replica=1)
    await stage.enter("a")
    await stage.enter("b")
    await stage.enter("a", patience_s=0.0)


async def dispatch_in_vain(*replicas: RouteReplica) -> None:
    time, view = Time(), view_of(make_model("org/m", ADAPTER))
    router = Router(time.clock)
    router.replace(Routes(1, replicas, {ADAPTER: tuple(each.id for each in replicas)}, {}))
    for replica in replicas:
        router.slots.try_enter(replica, "c" * 64)
    target = resolve_target(view, make_key(1), "org/m", session="r", now_us=1)
    plan = SimpleNamespace(target=target, affinity=b"", public_name="org/m")
    call: Any = SimpleNamespace(avoid=set(), plan=plan, key=make_key(1))
    share = Stage(per_replica=1).share
    await Dispatcher(router, NOTHING, NOTHING, fair_share=share, clock=time.clock, hold_s=0.0).send(
        call, NOTHING, NOTHING
    )


def exceed_context() -> GatewayError:
    target = resolve_target(view_of(make_model("org/m")), make_key(1), "org/m", session="r", now_us=1)
    plan = SimpleNamespace(target=target, public_name="org/m", surface=SimpleNamespace(prompt_field="messages"))
    return dispatch._client_error(cast(Any, SimpleNamespace(plan=plan)), b"context length")


async def find_engines_full(running: int = 3) -> None:
    time, view = Time(), view_of(make_model("org/m"))
    router, engine = Router(time.clock), RouteReplica("r", 1, "http://x", BASE, draining=False)
    router.replace(Routes(1, (engine,), {}, {}))
    target = resolve_target(view, make_key(1), "org/m", session="r", now_us=1)
    for _ in range(running + 1):  # the last is the call that is refused
        router.begin(engine, target)
    dispatcher = Dispatcher(router, NOTHING, NOTHING, fair_share=NOTHING, clock=time.clock, hold_s=0.0)
    call: Any = SimpleNamespace(plan=SimpleNamespace(target=target, public_name="org/m", surface=CHAT))
    answer: Any = SimpleNamespace(status=503, read=lambda: asyncio.sleep(0, b"secret"))
    raise await dispatch._judge(call, answer, dispatcher._engine_limit(call))


def read_body(length: int, *, held: int = 0) -> Callable[[], Any]:
    asked, budget = Exchange(Pipe()), BodyBudget(4, Time().clock)
    asked.headers["content-length"] = str(length)
    asked.body_arrived(b"x")
    budget.take(held)
    return lambda: asked.read_body(4, budget)


def run_late(**times: Any) -> GatewayError:
    found: list[GatewayError] = []
    silent = SimpleNamespace(slow=False, streams_events=False)
    call = type("Late", (), {"exchange": silent, "answer": None, "replica": None, "usage": None, **times})
    call.plan = SimpleNamespace(stream=True)  # type: ignore[attr-defined]
    call.interrupt = lambda _reason, verdict: found.append(verdict)  # type: ignore[attr-defined]
    current: Any = SimpleNamespace(latest=lambda: None)
    watch = Watch(current=current, router=NOTHING, deadlines=Deadlines(), clock=Time().clock)
    watch.calls.add(cast(Any, call))
    watch.sweep()
    return found[0]


def lose_answer() -> GatewayError:
    kept = replays._Kept("digest", "req", complete=True, status=0)
    return raised(lambda: replays._replay(Exchange(Pipe()), kept, "name"))


def spend_all(folder: Path) -> GatewayError:
    bank = Bank(folder, 0)
    error = raised(lambda: bank.wallet.reserve(make_key(1), PRICES, 10))
    bank.journal.close()
    return error


SLOTS = RouteReplica("r", 1, "http://x", BASE, draining=False, max_loras=1)
LIMITED: dict[tuple[str, str], Callable[[], GatewayError]] = {
    ("rate_limit_exceeded", "rpm"): lambda: exceed_rate(rpm=1),
    ("rate_limit_exceeded", "tpm"): lambda: exceed_rate(tpm=1),
    ("rate_limit_exceeded", "concurrency"): lambda: exceed_rate(concurrency=1),
    ("too_many_keys", "active_keys"): lambda: raised(
        lambda: RateLimits(Time().clock, FullTable()).enter(make_key(1), 1)
    ),
    ("queue_full", "waiting_calls"): lambda: fill_queue(64),
    ("queue_full", "waiting_calls_of_model"): lambda: fill_queue(MAX_QUEUED_PER_MODEL),
    ("no_turn_in_time", "hold_s"): lambda: raised(wait_for_turn),
    ("no_replica_ready", "hold_s"): lambda: raised(dispatch_in_vain),
    ("no_slot_in_time", "hold_s"): lambda: raised(lambda: dispatch_in_vain(SLOTS)),
    ("replicas_busy", "engine_calls"): lambda: raised(find_engines_full),
    ("context_length_exceeded", "context_tokens"): exceed_context,
    ("body_too_large", "body_bytes"): lambda: raised(read_body(5)),
    ("bodies_full", "held_body_bytes"): lambda: raised(read_body(1, held=4)),
    ("deadline_exceeded", "total_s"): lambda: run_late(began_at_s=0.0),
    ("first_token_late", "first_token_s"): lambda: run_late(began_at_s=999.0, asked_at_s=1.0),
    ("token_late", "between_tokens_s"): lambda: run_late(began_at_s=999.0, asked_at_s=1.0, usage=1),
    ("idempotency_answer_dropped", "kept_answer_bytes"): lose_answer,
}
ELSEWHERE = {"insufficient_quota", "body_too_slow", "too_many_connections", "headers_too_large"}
NO_LIMIT = {
    *("invalid_api_key", "api_key_revoked", "api_key_expired", "scope_missing", "address_not_allowed"),
    *("model_not_found", "model_not_deployed", "model_not_allowed", "model_retired", "filing_missing"),
    *("filing_expired", "price_missing", "invalid_json", "invalid_value", "unknown_parameter", "invalid_http"),
    *("unknown_url", "method_not_allowed", "not_implemented", "internal_error", "upstream_failed"),
    *("replica_not_ready", "hub_unavailable", "journal_unavailable", "snapshot_missing"),
    *("snapshot_stale", "idempotency_key_reused", "request_quarantined"),
}
FIELDS = {"limit", "limit_value", "set_by", "used", "left", "resets_at"}
HELPLESS = {"context_length_exceeded", "idempotency_answer_dropped", "replicas_busy"}
"""The counts of these are not known here."""


def check(error: dict[str, Any], limit: str) -> None:
    assert error.keys() >= FIELDS
    assert (error["limit"], bool(error["set_by"])) == (limit, True)
    if error["code"] not in HELPLESS:
        assert error["used"] >= error["limit_value"] > error["left"] == 0 or error["limit_value"] == 0


@pytest.mark.parametrize(("code", "limit"), LIMITED, ids="-".join)
def test_a_refused_call_names_its_limit_in_both_dialects(code: str, limit: str) -> None:
    error = LIMITED[code, limit]()
    assert error.code == code
    told = json.loads(error.envelope("req_1"))["error"]
    check(told, limit)
    anthropic = json.loads(error.anthropic_envelope("req_1"))["error"]
    assert anthropic.items() >= {name: told[name] for name in FIELDS}.items()
    # Whoever is told to come back is told when, in the header as in the body.
    headers = dict(error.headers())
    assert (told["resets_at"] is not None) == ("retry-after" in headers)
    assert headers.get("x-should-retry") == (None if error.status in (429, 503, 504) else "false")


def test_engines_that_take_no_more_are_named_with_what_runs_there() -> None:
    error = raised(find_engines_full)
    assert (error.details["set_by"], error.details["limit_value"]) == ("engines of org/m", None)
    assert (error.details["used"], error.details["left"], error.retry_after_s) == (3, 0, 2)


def test_a_call_without_money_names_its_limit(tmp_path: Path) -> None:
    error = spend_all(tmp_path)
    assert error.code == "insufficient_quota"
    assert error.details.keys() >= FIELDS | {"needed", "reason"}


def test_a_body_that_comes_too_slowly_names_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "READ_TIMEOUT_S", 0.01)  # nobody waits a minute
    error = raised(read_body(1))
    assert error.code == "body_too_slow"
    check(json.loads(error.envelope("req_1"))["error"], "body_s")


@pytest.mark.parametrize(
    ("code", "limit", "sent"),
    [
        ("too_many_connections", "connections", b""),
        ("headers_too_large", "headers", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (MAX_HEADERS + 2)),
        ("headers_too_large", "head_bytes", b"GET / HTTP/1.1\r\na: " + b"x" * 2**17),
    ],
)
def test_a_refused_connection_names_its_limit(code: str, limit: str, sent: bytes) -> None:
    async def connect() -> bytes:
        pipe = Pipe()
        connection = ClientConnection(NOTHING, set(), asyncio.get_running_loop(), full=not sent)
        connection.connection_made(pipe)
        if sent:
            connection.data_received(sent)
        return pipe.said

    head, _, body = asyncio.run(connect()).partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert error["code"] == code
    check(error, limit)
    assert (b"retry-after: " in head) == (code == "too_many_connections")


def test_a_firms_full_queue_names_its_limit() -> None:
    async def overflow() -> None:
        stage = Stage(per_replica=8, peers=8)
        for firm in ("a", "b"):
            await stage.share.enter(firm, stage.target, REPLICA, tried=(), give_up_at_s=2000.0, keep_waiting=NOTHING)
        waiting = [asyncio.create_task(stage.enter("a")) for _ in range(MAX_QUEUED)]
        await asyncio.sleep(0.05)
        try:
            await stage.enter("a")
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    error = raised(overflow)
    assert (error.code, error.details["used"]) == ("queue_full", MAX_QUEUED)
    check(json.loads(error.envelope("req_1"))["error"], "waiting_calls")


CODE_AT = {"GatewayError": 1, "unavailable": 0, "_late": 0}


def find_codes() -> set[str]:
    """Return every code that the sources refuse with, constants by name included."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "serving" / "gateway").glob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    constants = {
        node.targets[0].id: node.value.value
        for node in nodes
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        if isinstance(node.value, ast.Constant)
    }
    found = set()
    for node in nodes:
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        at = CODE_AT.get(node.func.id)
        given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        given += [] if at is None or len(node.args) <= at else [node.args[at]]
        found |= {one.value for one in given if isinstance(one, ast.Constant)}
        found |= {constants[one.id] for one in given if isinstance(one, ast.Name) and one.id in constants}
    # The default of `_refused` in `authenticate`.
    return {code for code in found if isinstance(code, str)} | {"invalid_api_key"}


def test_every_code_is_either_of_a_limit_and_documented_or_of_none() -> None:
    limited = {code for code, _limit in LIMITED} | ELSEWHERE
    assert len(limited) > 15
    assert not limited & NO_LIMIT
    assert find_codes() == limited | NO_LIMIT
    table = (ROOT / "docs" / "operations.md").read_text().partition("## Limits of a call")[2]
    told = re.findall(r"^\| `(\w+)` \| (.+?) \|", table, re.MULTILINE)
    assert {code for code, _ in told} == limited
    documented = {(code, limit) for code, cell in told for limit in re.findall(r"`(\w+)`", cell)}
    assert documented >= LIMITED.keys()

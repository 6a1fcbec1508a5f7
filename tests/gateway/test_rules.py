"""Keys, access, limits, bounds and routing, each by itself."""

import dataclasses
import json
from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest

from serving.contract import (
    Block,
    BlockScope,
    Filing,
    InFlight,
    ModelTarget,
    Peppers,
    RouteReplica,
    Routes,
    SnapshotKey,
    SubjectKind,
    cost_ufen,
)
from serving.gateway.access import draw_target, resolve_target
from serving.gateway.authenticate import authenticate
from serving.gateway.bounds import bound_tokens
from serving.gateway.clock import Clock
from serving.gateway.errors import GatewayError
from serving.gateway.limits import RateLimits
from serving.gateway.plan import Plan, plan_request
from serving.gateway.routing import Router
from serving.gateway.surfaces import CHAT, COMPLETIONS
from serving.gateway.view import STALE_AFTER_S, CurrentView, View
from tests.gateway.samples import (
    ADAPTER,
    BASE,
    CUSTOMER,
    OWNER,
    PEPPER,
    PEPPERS,
    PRICES,
    make_key,
    make_model,
    make_snapshot,
    secret_of,
)

NOW = 1_000_000


def view_of(*models: Any, key: Any = None, blocks: tuple[Block, ...] = ()) -> View:
    return View.of(make_snapshot(keys=(key or make_key(1),), models=models, blocks=blocks))


def code_of(call: Any) -> str:
    with pytest.raises(GatewayError) as refused:
        call()
    return refused.value.code


@pytest.mark.parametrize(
    ("token", "changes", "code"),
    [
        (None, {}, "invalid_api_key"),
        ("sk-other", {}, "invalid_api_key"),
        (secret_of(1)[:-1] + "y", {}, "invalid_api_key"),
        (secret_of(1), {"expires_at": NOW}, "api_key_expired"),
        (secret_of(1), {"revoked_at": NOW}, "api_key_revoked"),
        (secret_of(1), {"scopes": ()}, "scope_missing"),
        (secret_of(1), {"ip_ranges": ("192.168.0.0/16", "::1/128")}, "address_not_allowed"),
    ],
)
def test_keys_that_do_not_open(token: str | None, changes: dict[str, Any], code: str) -> None:
    view = view_of(key=make_key(1, **changes))
    header = None if token is None else f"Bearer {token}"
    assert code_of(lambda: authenticate(view, header, peppers=PEPPERS, client_ip="10.1.2.3", now_us=NOW)) == code


def test_a_key_opens_until_its_end() -> None:
    key = make_key(1, expires_at=NOW + 1, revoked_at=NOW + 1, ip_ranges=("10.0.0.0/8",))
    header = f"bearer {secret_of(1)}"
    assert authenticate(view_of(key=key), header, peppers=PEPPERS, client_ip="10.1.2.3", now_us=NOW) == key


def test_a_secret_is_proven_once_for_each_snapshot_and_everything_else_every_time() -> None:
    key = make_key(1, expires_at=NOW + 1, ip_ranges=("10.0.0.0/8",))
    view = view_of(key=key)

    def call(secret: str = secret_of(1), address: str = "10.1.2.3", now_us: int = NOW, **changed: Any) -> Any:
        rest: dict[str, Any] = {"peppers": PEPPERS, "client_ip": address, "now_us": now_us} | changed
        return authenticate(rest.pop("view", view), f"Bearer {secret}", **rest)

    assert call() == key
    others = Peppers(b"another pepper")
    assert call(peppers=others) == key, "the secret is known"
    assert code_of(lambda: call(peppers=others, view=view_of(key=key))) == "invalid_api_key"
    assert code_of(lambda: call(secret_of(1)[:-1] + "y")) == "invalid_api_key"
    assert code_of(lambda: call(address="192.168.0.1")) == "address_not_allowed"
    assert code_of(lambda: call(now_us=NOW + 1)) == "api_key_expired"
    assert code_of(lambda: call(view=view_of(key=make_key(1, revoked_at=NOW)))) == "api_key_revoked"
    assert len(view.proven) == 1


@pytest.mark.parametrize("kind", list(SubjectKind))
@pytest.mark.parametrize(("scope", "organisation"), [(s, o) for s in BlockScope for o in (OWNER, CUSTOMER)])
def test_blocks_reach_whom_they_should(kind: SubjectKind, scope: BlockScope, organisation: str) -> None:
    model = make_model("org/m", ADAPTER)
    subject = {
        SubjectKind.BASE: BASE,
        SubjectKind.ADAPTER: ADAPTER,
        SubjectKind.MODEL: "org/m",
        SubjectKind.ORGANISATION: OWNER,
    }[kind]
    block = Block(kind, subject, scope, InFlight.FINISH, "stopped", "停", "stop", NOW)
    key = make_key(1, organisation_id=organisation)
    view = view_of(model, key=key, blocks=(block,))

    def resolve(now_us: int) -> Any:
        return resolve_target(view, key, "org/m", session="r", now_us=now_us)

    assert resolve(NOW - 1).digest == ADAPTER
    spared = scope is BlockScope.PUBLIC and organisation == OWNER and kind is not SubjectKind.ORGANISATION
    if spared:
        assert resolve(NOW).digest == ADAPTER
    else:
        assert code_of(lambda: resolve(NOW)) == "stopped"


def test_a_filing_ends_for_others_on_the_microsecond() -> None:
    model = make_model("org/m", filing=Filing("n", "1", NOW))
    for organisation, strict in ((CUSTOMER, True), (OWNER, False), (OWNER, True)):
        key = make_key(1, organisation_id=organisation)
        view = view_of(dataclasses.replace(model, owner_may_call=not strict), key=key)
        assert resolve_target(view, key, "org/m", session="r", now_us=NOW - 1).engine_name == "base"
        if strict:
            with pytest.raises(GatewayError, match="expired"):
                resolve_target(view, key, "org/m", session="r", now_us=NOW)
        else:
            resolve_target(view, key, "org/m", session="r", now_us=NOW)


def test_a_blocked_version_leaves_its_weight_to_the_others() -> None:
    targets = (ModelTarget("ver_a", ADAPTER, 3), ModelTarget("ver_b", BASE, 1), ModelTarget("ver_c", "c" * 64, 0))
    model = make_model("org/m", targets=targets)
    drawn = [draw_target(model, list(targets), f"req_{number}").version_id for number in range(400)]
    assert 250 < drawn.count("ver_a") < 350
    assert "ver_c" not in drawn
    block = Block(SubjectKind.ADAPTER, ADAPTER, BlockScope.ALL, InFlight.CUT, "bad", "", "", 0)
    view = view_of(model, blocks=(block,))
    found = {resolve_target(view, make_key(1), "org/m", session=f"{n}", now_us=NOW).version_id for n in range(20)}
    assert found == {"ver_b"}


def test_what_a_name_stands_for_is_remembered_for_the_record_of_the_key_that_asked() -> None:
    key = make_key(1)
    view = view_of(make_model("org/m"), key=key)
    found = resolve_target(view, key, "org/m", session="a", now_us=NOW)
    assert resolve_target(view, key, "org/m", session="b", now_us=NOW) is found
    narrower = dataclasses.replace(key, models=("org/other",))
    assert code_of(lambda: resolve_target(view, narrower, "org/m", session="a", now_us=NOW)) == "model_not_allowed"


def test_a_retired_model_names_its_date_and_what_to_call_instead() -> None:
    for successor, told in (("org/new", "call org/new instead"), (None, "choose another from /v1/models")):
        view = view_of(make_model("org/m", retires_at=NOW, successor=successor))
        assert resolve_target(view, make_key(1), "org/m", session="", now_us=NOW - 1).version_id
        with pytest.raises(GatewayError, match=told) as refused:
            resolve_target(view, make_key(1), "org/m", session="", now_us=NOW)
        assert (refused.value.status, refused.value.code) == (404, "model_retired")


def test_a_caller_keeps_its_version_and_a_growing_share_takes_none_back() -> None:
    def drawn(percent: int) -> list[str]:
        targets = (ModelTarget("ver_new", ADAPTER, percent), ModelTarget("ver_old", BASE, 100 - percent))
        view = view_of(make_model("org/m", targets=targets))
        names = (f"session-{number}" for number in range(400))
        return [resolve_target(view, make_key(1), "org/m", session=name, now_us=NOW).version_id for name in names]

    small, large = drawn(5), drawn(25)
    assert small == drawn(5)
    assert 5 <= small.count("ver_new") <= 40
    assert 70 <= large.count("ver_new") <= 130
    assert all(later == "ver_new" for first, later in zip(small, large, strict=True) if first == "ver_new")


def test_a_version_that_no_engine_offers_leaves_its_callers_to_the_other() -> None:
    targets = (ModelTarget("ver_new", ADAPTER, 99), ModelTarget("ver_old", BASE, 1))
    view = view_of(make_model("org/m", targets=targets))

    def found(is_routed: bool) -> set[str]:
        return {
            resolve_target(
                view,
                make_key(1),
                "org/m",
                session=f"s{number}",
                now_us=NOW,
                is_routed=lambda _model, target: is_routed or target.digest == BASE,
            ).version_id
            for number in range(50)
        }

    assert found(False) == {"ver_old"}
    assert "ver_new" in found(True)


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.clock = Clock(now_us=lambda: int(self.now_s * 1e6), monotonic_s=lambda: self.now_s)


def test_windows_slide() -> None:
    time = Time()
    limits = RateLimits(time.clock)
    key = make_key(1, rpm=2, tpm=100, concurrency=1)
    limits.enter(key, 1)
    with pytest.raises(GatewayError, match="concurrency = 1"), limits.seat(key, 1):
        pass
    limits.leave(key, 1, 150)
    with pytest.raises(GatewayError) as refused, limits.seat(key, 1):
        pass
    details = refused.value.details
    assert (details["limit"], details["used"], details["resets_at"]) == ("tpm", 150, "1970-01-01T00:17:40+00:00")
    time.now_s += 60.5
    for _ in range(2):
        with limits.seat(key, 1):
            pass
    with pytest.raises(GatewayError, match="rpm = 2"), limits.seat(key, 1):
        pass


def refuse(limits: RateLimits, key: SnapshotKey, worst_tokens: int) -> GatewayError:
    with pytest.raises(GatewayError) as refused:
        limits.enter(key, worst_tokens)
    return refused.value


def test_tokens_are_set_aside_while_a_call_runs_and_counted_when_it_ends() -> None:
    time = Time()
    limits, key = RateLimits(time.clock), make_key(1, tpm=100)
    limits.enter(key, 60)
    busy = refuse(limits, key, 41)
    assert (busy.details["used"], busy.details["left"], busy.retry_after_s) == (60, 40, 1)
    limits.enter(key, 40)
    time.now_s += 300  # a call that runs for longer than a minute keeps what is set aside for it
    assert refuse(limits, key, 1).details["used"] == 100
    limits.leave(key, 60, 10)
    limits.enter(key, 50)
    assert refuse(limits, key, 1).details["left"] == 0


def test_a_refusal_for_tokens_says_when_enough_are_free() -> None:
    time = Time()
    limits, key = RateLimits(time.clock), make_key(1, tpm=100)
    for _ in range(3):
        limits.enter(key, 0)
        limits.leave(key, 0, 30)
        time.now_s += 10
    waits = [refuse(limits, key, tokens).retry_after_s for tokens in (11, 40, 41, 70, 71, 100)]
    assert waits == [31, 31, 41, 41, 51, 51]
    time.now_s += waits[0] or 0
    limits.enter(key, 40)


def test_a_call_that_alone_could_pass_the_limit_is_told_to_ask_for_less() -> None:
    error = refuse(RateLimits(Time().clock), make_key(1, tpm=100), 101)
    assert "up to 101" in error.message
    assert "max_tokens" in error.message
    assert (error.details["limit"], error.details["used"], error.details["left"]) == ("tpm", 0, 100)
    assert (error.details["resets_at"], dict(error.headers())) == (None, {"x-should-retry": "false"})


def test_a_view_grows_stale() -> None:
    time = Time()
    current = CurrentView(time.clock)
    assert code_of(current.fresh) == "snapshot_missing"
    current.replace(view_of())
    time.now_s += STALE_AFTER_S
    current.fresh()
    time.now_s += 0.1
    assert code_of(current.fresh) == "snapshot_stale"
    current.confirm()
    assert current.fresh().version == 1


def plan(body: dict[str, Any], *, context_tokens: int = 2048) -> Plan:
    view = view_of(make_model("org/m", context_tokens=context_tokens))
    raw = json.dumps({"model": "org/m"} | body).encode()
    surface = CHAT if "messages" in body else COMPLETIONS
    return plan_request(view, make_key(1), surface, raw, session="r", pepper=PEPPER, now_us=NOW)


def test_reservations_have_an_upper_bound() -> None:
    message = [{"role": "user", "content": "主" * 100}]
    assert plan({"messages": message * 99}).worst_ufen == cost_ufen(PRICES, 2048, 0, 2048)
    assert plan({"prompt": [1, 2, 3], "n": 2, "max_tokens": 5}).worst_ufen == cost_ufen(PRICES, 11, 0, 10)
    assert plan({"prompt": ["ab", "c"]}).worst_ufen == cost_ufen(PRICES, 19, 0, 32)
    short = bound_tokens(CHAT, {"messages": message}, body_bytes=340, max_tokens=7, context_tokens=10**6)
    assert 300 < short.prompt_tokens < 700
    assert short.completion_tokens == 7


def test_a_call_of_a_model_that_is_free_still_holds_something() -> None:
    free = tuple(dataclasses.replace(price, amount_fen=0) for price in PRICES)
    view = View.of(make_snapshot(keys=(), models=(make_model("org/m"),), prices=free))
    raw = b'{"model":"org/m","messages":[{"role":"user","content":"x"}]}'
    assert plan_request(view, make_key(1), CHAT, raw, session="r", pepper=PEPPER, now_us=NOW).worst_ufen == 1


def test_max_tokens_are_injected_only_where_a_context_is_long() -> None:
    message = [{"role": "user", "content": "x"}]
    assert "max_tokens" not in json.loads(plan({"messages": message}).upstream_body)
    assert json.loads(plan({"messages": message}, context_tokens=131072).upstream_body)["max_tokens"] == 4096
    assert json.loads(plan({"messages": message, "max_completion_tokens": 3}).upstream_body)["max_tokens"] == 3


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"messages": NaN}',
        b'{"model":"org/m","messages":[{"role":"user","content":"\\ud800"}]}',
    ],
)
def test_bodies_that_are_no_json_object(raw: bytes) -> None:
    view = view_of(make_model("org/m"))
    with pytest.raises(GatewayError) as refused:
        plan_request(view, make_key(1), CHAT, raw, session="r", pepper=PEPPER, now_us=NOW)
    assert (refused.value.status, refused.value.code) == (400, "invalid_json")


@pytest.mark.parametrize("prompt", ["", [], [True], [1, "a"], [[]], [None], {"a": 1}, None, ["a"] * 65])
def test_prompts_that_are_none(prompt: Any) -> None:
    with pytest.raises(GatewayError) as refused:
        plan({"prompt": prompt})
    assert refused.value.param == "prompt"


def test_salts_part_organisations() -> None:
    view = view_of(make_model("org/m"))
    raw = b'{"model":"org/m","messages":[{"role":"user","content":"x"}]}'
    salts = set()
    for organisation in (OWNER, CUSTOMER, CUSTOMER):
        key = make_key(1, organisation_id=organisation)
        made = plan_request(view, key, CHAT, raw, session="r", pepper=PEPPER, now_us=NOW)
        salts.add(json.loads(made.upstream_body)["cache_salt"])
    assert len(salts) == 2


def test_the_router_prefers_resident_then_idle_then_unsuspected() -> None:
    time = Time()
    router = Router(time.clock)
    replicas = tuple(RouteReplica(name, 1, "http://x", BASE, draining=name == "d") for name in "abcd")
    router.replace(Routes(1, replicas, {ADAPTER: ("a", "b", "d")}, {ADAPTER: ("b", "d")}))
    view = view_of(make_model("org/m", ADAPTER), make_model("org/b"))
    adapter = resolve_target(view, make_key(1), "org/m", session="r", now_us=NOW)
    base = resolve_target(view, make_key(1), "org/b", session="r", now_us=NOW)

    def picked(target: Any, *tried: str) -> str | None:
        replica = router.pick(target, tried=tried)
        return None if replica is None else replica.id

    assert (picked(adapter), picked(adapter, "b"), picked(adapter, "a", "b")) == ("b", "a", None)
    with router.in_flight(replicas[0], base):
        assert picked(base) == "b"
        assert router.demand()[0].in_flight == 1
    router.suspect(replicas[1])
    assert picked(adapter) == "a"
    time.now_s += 3
    assert picked(adapter) == "b"
    with router.queued(adapter):
        time.now_s += 2
        assert [(row.digest, row.queued, row.queue_wait_ms) for row in router.demand()] == [(ADAPTER, 1, 2000)]
    assert router.demand() == ()


def test_affinity_keeps_a_session_on_one_replica_until_that_carries_too_much() -> None:
    router = Router(Time().clock)
    replicas = tuple(RouteReplica(name, 1, "http://x", BASE, draining=False) for name in "abcd")
    router.replace(Routes(1, replicas, {}, {}))
    view = view_of(make_model("org/b"))
    base = resolve_target(view, make_key(1), "org/b", session="r", now_us=NOW)

    def picked(affinity: bytes) -> RouteReplica:
        replica = router.pick(base, affinity=affinity)
        assert replica is not None
        return replica

    assert len({picked(b"session").id for _ in range(20)}) == 1
    assert {picked(str(number).encode()).id for number in range(60)} == set("abcd")
    used: Counter[str] = Counter()
    with ExitStack() as running:
        for _ in range(40):
            replica = picked(b"session")
            used[replica.id] += 1
            running.enter_context(router.in_flight(replica, base))
    assert max(used.values()) <= 1.25 * 41 / 4
    assert len(used) == 4
    gone = next(name for name in "abcd" if name != picked(b"session").id)
    before = picked(b"session").id
    router.replace(Routes(2, tuple(each for each in replicas if each.id != gone), {}, {}))
    assert picked(b"session").id == before, "only the share of the one that left moves"


def test_a_merged_replica_answers_its_adapter_before_others_and_never_the_base() -> None:
    router = Router(Time().clock)
    merged = RouteReplica("m", 1, "http://x", BASE, draining=False, merged=ADAPTER)
    lora = RouteReplica("l", 1, "http://x", BASE, draining=False, max_loras=8)
    router.replace(Routes(1, (lora, merged), {ADAPTER: ("l", "m")}, {ADAPTER: ("l", "m")}))
    view = view_of(make_model("org/m", ADAPTER), make_model("org/b"))
    adapter = resolve_target(view, make_key(1), "org/m", session="r", now_us=NOW)
    base = resolve_target(view, make_key(1), "org/b", session="r", now_us=NOW)
    assert router.pick(adapter, affinity=b"x") == merged
    assert router.pick(adapter, tried=("m",)) == lora
    assert router.pick(base, tried=("l",)) is None

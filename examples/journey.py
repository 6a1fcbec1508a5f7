"""The whole journey as an outside client sees it: choose, adapt, use, statement. Started by `make demo`.

    python -m examples.journey --hub URL --gateway URL --home DIR

Everything goes through the hub's HTTP API and the gateway's `/v1` with the stock openai SDK; `--home` is read only for
the demonstration's one-time credentials and written only with `demo.env`.
"""

import argparse
from pathlib import Path
from typing import Any

from openai import OpenAI

from examples import screen, steps
from examples.entry import Market, write_environment
from examples.hub_client import Hub, RefusedError
from examples.screen import heading, tell, yuan
from examples.tasks.work_orders import RECIPE, generate_rows
from examples.tasks.work_orders import main as write_work_orders

BASES = {"guanmo/demo-zh-3m": "DEMO-备案-0001", "guanmo/demo-bilingual-4m": "DEMO-备案-0002"}
UNFILED = "guanmo/demo-trial-1m"
BASE = "guanmo/demo-bilingual-4m"
MODEL = "work-orders"
VOUCHER_FEN = 100_000
CASH_FEN = 200_000
SERVED_ROWS = 100


def main() -> int:
    """Run the journey; returns 0, or 1 after one line that says what was wrong."""
    parser = argparse.ArgumentParser(prog="python -m examples.journey", description=__doc__)
    parser.add_argument("--hub", required=True)
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--home", type=Path, required=True)
    options = parser.parse_args()
    try:
        travel(options.hub, options.gateway, options.home)
    except (steps.StoryError, RefusedError, TimeoutError) as error:
        screen.console.print(f"[red]The journey stopped: {error}[/red]")
        return 1
    return 0


def travel(hub_url: str, gateway_url: str, home: Path) -> None:
    """Choose a base, adapt it, use the result, read the statement."""
    operator = steps.sign_in(hub_url, home, "operator")
    factory = steps.sign_in(hub_url, home, "factory")
    choose(operator, factory, home)
    pay_in(operator, steps.sign_in(hub_url, home, "reviewer"), factory)
    version_id, name = adapt(factory, home)
    key = use(factory, gateway_url, version_id, name)
    show_statement(factory)
    write_environment(Market(hub_url, gateway_url, home), key=key, model=name, base=BASE)
    show_addresses(hub_url, gateway_url, home)


def choose(operator: Hub, factory: Hub, home: Path) -> None:
    """The operator files two bases; the factory looks at the catalogue; a third base stays unfiled."""
    heading("1 选模型 Choose")
    for name, number in BASES.items():
        steps.file_base(operator, name, number, home / "samples")
    for model in factory.get("/api/v1/models", kind="base")["models"]:
        filing = model["filing"]["number"] or "none"
        tell(f"{model['name']}: {model['title_en']}, filing {filing}")


def pay_in(operator: Hub, reviewer: Hub, factory: Hub) -> None:
    """The factory applies for both vouchers, two people decide, and a bank deposit arrives."""
    heading("2 模型券与算力券 Vouchers")
    for programme in ("model", "compute"):
        grant = steps.obtain_voucher(factory, operator, reviewer, programme, VOUCHER_FEN)
        tell(f"{grant['title']['en']}: {yuan(grant['left_fen'])} left of {yuan(grant['awarded_fen'])}")
    tell(f"cash: {yuan(steps.top_up(operator, factory, CASH_FEN))}")


def adapt(factory: Hub, home: Path) -> tuple[str, str]:
    """Upload, check, plan, compare offers, quote, accept, train; return the version's id and public name."""
    heading("3 改模型 Adapt")
    write_work_orders([str(home / "samples"), "--format", "csv"])
    dataset = steps.upload_dataset(factory, home / "samples" / "work_orders.csv", "fault reports")
    version = dataset["version"]
    tell(f"data: {version['train_rows']} rows to learn from, {version['valid_rows']} held out")
    run = steps.plan_run(factory, base=BASE, dataset=dataset["id"], model=MODEL, recipe=dict(RECIPE))
    tell(f"plan: {run['plan']['tokens']:,} tokens in {run['plan']['steps']} steps")
    offers = factory.get("/api/v1/offers")["offers"]
    for offer in offers:
        city = "through the city platform" if offer["via_city_platform"] else "not through the city platform"
        hour = yuan(offer["price"]["hour_fen"])
        tell(f"offer: {offer['title']['en']} ({offer['accelerator']}), {hour} an hour, {city}")
    show_refusal(factory, dataset["id"], offers[0]["id"])
    chosen = max((offer for offer in offers if offer["via_city_platform"]), key=lambda offer: offer["tokens_per_s"])
    quote = steps.quote_run(factory, run, chosen["id"])
    done = steps.train_run(factory, run, quote)
    show_scores(done)
    version = factory.get(f"/api/v1/versions/{done['version_id']}")
    return done["version_id"], version["name"]


def show_refusal(factory: Hub, dataset_id: str, offer_id: str) -> None:
    """A base without a filing can be ordered for cash, never with a model voucher."""
    run = steps.plan_run(factory, base=UNFILED, dataset=dataset_id, model="trial")
    steps.explain_refusal(
        lambda: factory.post(f"/api/v1/runs/{run['id']}/quote", offer_id=offer_id, use_model_voucher=True)
    )
    factory.post(f"/api/v1/runs/{run['id']}/cancel")


def show_scores(run: dict[str, Any]) -> None:
    """Print base against adapter on the held-out rows, and what the run came to."""
    for who in ("base", "adapter"):
        found = run["metrics"][who]
        interval = f"{found['exact_match_low']:.1%} to {found['exact_match_high']:.1%}"
        tell(f"{who}: {found['exact_match']:.1%} exact ({interval}), loss {found['loss']:.3f}")
    tell(f"held-out rows: {run['metrics']['n']}; accept to first step {run['accept_to_first_step_ms'] / 1000:.1f} s")


def use(factory: Hub, gateway_url: str, version_id: str, name: str) -> str:
    """Deploy the version, make a key, call base and adapter with the stock SDK; return the key."""
    heading("4 用模型 Use")
    steps.deploy_version(factory, version_id)
    made = factory.post("/api/v1/keys", name="demo")
    key = str(made["key"])
    client = OpenAI(base_url=gateway_url, api_key=key)
    tell(f"models: {', '.join(model.id for model in client.models.list())}")
    question = next(row for row in generate_rows() if row.split == "valid")
    messages: Any = [{"role": "user", "content": question.question}]
    tell(f"asked: {question.question} (right: {question.answer})")
    for model in (BASE, name):
        answer = client.chat.completions.create(model=model, messages=messages, max_tokens=40, temperature=0)
        tell(
            f"{model}: {answer.choices[0].message.content} ({answer.usage.total_tokens if answer.usage else 0} tokens)"
        )
    stream = client.chat.completions.create(model=name, messages=messages, max_tokens=40, temperature=0, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    tell(f"streamed: {''.join(pieces)} in {len(pieces)} pieces")
    hits = steps.score_rows(gateway_url, key, name, SERVED_ROWS)
    tell(f"served through the gateway: {hits} of {SERVED_ROWS} held-out reports exact")
    calls = 3 + SERVED_ROWS
    steps.wait_for_calls(factory, made["id"], calls)
    tell(f"metered: {calls} calls, from the engine's own count of tokens")
    return key


def show_statement(factory: Hub) -> None:
    """Print the month's statement to the fen."""
    heading("5 账单 Statement")
    report = steps.wait_for_usage(factory, "/api/v1/statement", has_calls)
    for line in report["lines"]:
        voucher = line["voucher"]
        line["title"] = {"en": line["title_en"]}
        line["quantity"], line["meter"] = sum(line["quantities"].values()), "/".join(line["quantities"])
        line["covers"] = [voucher] if voucher else []
    screen.show_bill(report["lines"], f"Statement {report['month']} of {report['organisation_name']}")
    vouchers, own = yuan(report["voucher_fen"]), yuan(report["self_paid_fen"])
    pending = sum(line["pending_ufen"] for line in report["lines"])
    tell(f"called and not posted yet, less than its allowance: {pending / 1_000_000:.2f} fen")
    tell(f"list {yuan(report['list_fen'])} = vouchers {vouchers} + self-paid {own}")
    for item in report["balances"]:
        moved = f"{yuan(item['before_fen'])} + {yuan(item['credited_fen'])} - {yuan(item['charged_fen'])}"
        tell(f"{item['title_en']}: {moved} = {yuan(item['after_fen'])} (held {yuan(item['held_fen'])})")
    tell(f"the ledger sums to {report['ledger_sum_fen']} fen")


def has_calls(report: dict[str, Any]) -> bool:
    """Say whether the month's calls are on the statement, posted or pending."""
    return any(line["kind"] == "calls" for line in report["lines"])


def show_addresses(hub_url: str, gateway_url: str, home: Path) -> None:
    """Print where to go on from here."""
    heading("Open 打开")
    tell(f"marketplace {hub_url}   OpenAI base_url {gateway_url}")
    tell(f"accounts and one-time passwords: {home / 'demo-credentials.json'} (0600)")


if __name__ == "__main__":
    raise SystemExit(main())

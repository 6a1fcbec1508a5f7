"""The journey on real work orders: three factories, one adapter each on one base, scored through the gateway.

    make demo DATA=PATH                   (files of the layout company_{a,b,c}.{train,val}.norm)

The last line printed is one JSON object {"A": {"base": …, "adapter": …, "train_s": …}, …}; scores are error reduction
rates in percent on the validation sentences. The data is read where it lies and stays outside the project.
"""

import argparse
import asyncio
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from openai import AsyncOpenAI
from rich.table import Table

from examples import screen, steps
from examples.entry import Market, write_environment
from examples.hub_client import Hub, RefusedError
from examples.screen import heading, tell
from examples.tasks import maintnorm
from examples.tasks.upload import write_upload
from hub.organisations.rules import make_demo_uscc

BASE = "guanmo/demo-letters-3m"
CONCURRENT_CALLS = 8
CASH_FEN = 500_000
FIRST_SERIAL = 500


def main() -> int:
    """Run the three factories; returns 0, or 1 after one line that says what was wrong."""
    parser = argparse.ArgumentParser(prog="python -m examples.factories")
    parser.add_argument("--hub", required=True)
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--plan", choices=list(maintnorm.PLANS), default="usual")
    options = parser.parse_args()
    try:
        scores = {
            letter: serve_factory(options, serial, letter)
            for serial, letter in enumerate(maintnorm.FACTORIES, FIRST_SERIAL)
        }
    except (steps.StoryError, RefusedError, TimeoutError, FileNotFoundError) as error:
        screen.console.print(f"[red]The run stopped: {error}[/red]")
        return 1
    show_scores(scores)
    print(
        json.dumps(
            {letter: {name: row[name] for name in ("base", "adapter", "train_s")} for letter, row in scores.items()}
        )
    )
    return 0


def serve_factory(options: Any, serial: int, letter: str) -> dict[str, float]:
    """One factory: signs up, learns from its training sentences, is scored on its validation sentences."""
    heading(f"Factory {letter}")
    operator = steps.sign_in(options.hub, options.home, "operator")
    steps.file_base(operator, BASE, "DEMO-备案-0003", options.home / "samples")
    factory = sign_up(options.hub, operator, serial, letter)
    steps.top_up(operator, factory, CASH_FEN)
    file = options.home / "samples" / f"company_{letter.lower()}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    plan = maintnorm.PLANS[options.plan]
    sentences = maintnorm.read_sentences(options.data, letter, "train")
    rows = maintnorm.build_upload(sentences, valid_rows=plan.valid_rows, variants=plan.variants)
    write_upload(file, rows, question="prompt", answer="completion")
    done = learn(factory, file, letter, plan)
    name = steps.deploy_version(factory, done["version_id"])["public_name"]
    key = str(factory.post("/api/v1/keys", name="scoring")["key"])
    write_environment(Market(options.hub, options.gateway, options.home), key=key, model=name, base=BASE)
    sentences = maintnorm.read_sentences(options.data, letter, options.split)
    found = {model: score_model(options.gateway, key, model, sentences) for model in (BASE, name)}
    baseline = maintnorm.score_most_frequent(options.data, letter, options.split)
    tell(f"base {found[BASE]:.1f}, adapter {found[name]:.1f}, most frequent replacement {baseline:.1f}")
    return {
        "base": round(found[BASE], 1),
        "adapter": round(found[name], 1),
        "most_frequent": round(baseline, 1),
        "train_s": round(done["device_ms"] / 1000, 1),
    }


def sign_up(hub_url: str, operator: Hub, serial: int, letter: str) -> Hub:
    """Register a factory through the public interface and have the operator verify it."""
    password, email = uuid.uuid4().hex, f"factory-{letter.lower()}-{uuid.uuid4().hex[:8]}@demo.guanmo.example"
    visitor = Hub(hub_url)
    try:
        made = visitor.post(
            "/api/v1/organisations",
            name=f"演示工厂 {letter}",
            uscc=make_demo_uscc(serial + int(uuid.uuid4().hex[:4], 16)),
            kind="factory",
            slug=f"demo-factory-{letter.lower()}-{uuid.uuid4().hex[:6]}",
            user={"email": email, "name": f"工程师 {letter}", "password": password},
        )
    finally:
        visitor.http.close()
    operator.post(f"/api/v1/organisations/{made['organisation']['id']}/verify")
    return Hub(hub_url, email=email, password=password)


def learn(factory: Hub, file: Path, letter: str, plan: maintnorm.Plan) -> dict[str, Any]:
    """Upload, plan, quote on the fastest offer, train."""
    data = steps.upload_dataset(factory, file, f"work orders {letter}")
    run = steps.plan_run(factory, base=BASE, dataset=data["id"], model="normaliser", recipe=dict(plan.recipe))
    offer = max(factory.get("/api/v1/offers")["offers"], key=lambda found: found["tokens_per_s"])
    return steps.train_run(factory, run, steps.quote_run(factory, run, offer["id"]))


def score_model(gateway: str, key: str, model: str, sentences: Sequence[maintnorm.Sentence]) -> float:
    """Send each sentence through the gateway; return the error reduction rate in percent."""
    answers = asyncio.run(_ask_all(gateway, key, model, sentences))
    corrected = [maintnorm.read_correction(one, answer) for one, answer in zip(sentences, answers, strict=True)]
    return maintnorm.score_error_reduction(sentences, corrected)


async def _ask_all(gateway: str, key: str, model: str, sentences: Sequence[maintnorm.Sentence]) -> list[str]:
    gate = asyncio.Semaphore(CONCURRENT_CALLS)
    async with AsyncOpenAI(base_url=gateway, api_key=key) as client:
        return await asyncio.gather(*(_ask(client, gate, model, one) for one in sentences))


async def _ask(client: AsyncOpenAI, gate: asyncio.Semaphore, model: str, sentence: maintnorm.Sentence) -> str:
    async with gate:
        answer = await client.chat.completions.create(
            model=model,
            messages=cast(Any, sentence.to_messages()),
            max_tokens=40 + 16 * len(sentence.raw),
            temperature=0,
        )
    return answer.choices[0].message.content or ""


def show_scores(scores: dict[str, dict[str, float]]) -> None:
    """Print the table: error reduction rate per factory."""
    table = Table(title="Error reduction rate on validation sentences, %", title_justify="left")
    for name in ("factory", "base", "most frequent replacement", "adapter", "training s"):
        table.add_column(name, justify="right")
    for letter, row in scores.items():
        cells = (row["base"], row["most_frequent"], row["adapter"], row["train_s"])
        table.add_row(letter, *(f"{cell:.1f}" for cell in cells))
    screen.console.print(table)


if __name__ == "__main__":
    raise SystemExit(main())

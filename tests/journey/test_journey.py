"""The whole journey on real parts, once: MLflow, hub, worker, PEFT training, vLLM, gateway, stock openai SDK."""

import json
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from fractions import Fraction
from typing import Any

import openai
import pytest

from tests.journey.conftest import ROOT, Journey

pytestmark = [pytest.mark.engine, pytest.mark.timeout(2400)]

UFEN = 1_000_000


def test_demo_ends_with_a_statement_and_its_environment(journey: Journey) -> None:
    assert "the ledger sums to 0 fen" in journey.output
    assert set(journey.values) == {
        "GUANMO_URL",
        "OPENAI_BASE_URL",
        "OPENAI_API_KEY",
        "GUANMO_MODEL",
        "GUANMO_BASE_MODEL",
    }
    for name in ("demo.env", "demo-credentials.json"):
        assert stat.S_IMODE((journey.home / name).stat().st_mode) == 0o600


def test_status_shows_every_process_well(journey: Journey) -> None:
    done = journey.guanmo("status")
    assert done.returncode == 0, done.stdout
    assert all(name in done.stdout for name in ("mlflow", "hub", "pool", "gateway", "worker"))


def test_adapter_learned_what_the_base_cannot_know(journey: Journey) -> None:
    run = newest_run(journey)
    base, adapter = run["metrics"]["base"], run["metrics"]["adapter"]
    assert run["metrics"]["n"] >= 200
    assert base["exact_match"] <= 0.20
    assert adapter["exact_match"] >= 0.80
    assert adapter["exact_match_low"] <= adapter["exact_match"] <= adapter["exact_match_high"]
    assert adapter["loss"] < base["loss"]


def test_version_has_lineage_by_content_and_is_in_mlflow(journey: Journey) -> None:
    factory = journey.sign_in("factory")
    version = factory.get(f"/api/v1/versions/{newest_run(journey)['version_id']}")
    lineage = version["lineage"]
    assert lineage["artifact_digest"] == version["artifact_digest"]
    assert lineage["base_weights_digest"] == version["weights_digest"]
    assert lineage["data_digests"]
    assert lineage["code_digest"]
    assert lineage["recipe_digest"]
    files = {path.name for path in (journey.home / "artifacts" / version["artifact_digest"]).iterdir()}
    assert files == {"adapter_model.safetensors", "adapter_config.json", "SHA256SUMS"}
    assert version["mlflow_model"]
    assert version["mlflow_version"]


def test_order_bills_what_was_metered(journey: Journey) -> None:
    """From the raw meter up: device time and tokens x price, share floored once, and no more than the quote."""
    factory = journey.sign_in("factory")
    run = newest_run(journey)
    order = factory.get(f"/api/v1/orders/{run['order_id']}")
    quote = factory.get(f"/api/v1/quotes/{run['quote_id']}")
    measured = {"device_ms": run["device_ms"], "trained_tokens": run["trained_tokens"]}
    charged = voucher = 0
    for line in quote["lines"]:
        quantity = min(measured[line["meter"]], line["quantity"])
        fee = quantity * line["price"]["amount_fen"] // line["price"]["per_units"]
        share = sum(
            min(int(Fraction(fee * item["share"]["num"], item["share"]["den"])), item["amount_fen"])
            for item in line["covers"]
        )
        charged, voucher = charged + fee, voucher + share
    assert run["trained_tokens"] == quote["trained_tokens"]
    assert (order["charged_fen"], order["voucher_fen"]) == (charged, voucher)
    assert order["self_paid_fen"] == charged - voucher
    assert order["state"] == "settled"
    assert charged <= quote["list_fen"]


def test_calls_are_priced_from_the_engines_own_usage(journey: Journey) -> None:
    """Sum of (tokens x price) over raw usage rows, exact, is what the statement's call lines rest on."""
    factory = journey.sign_in("factory")
    usage = factory.get("/api/v1/usage", limit=1000)["items"]
    assert len(usage) >= 3
    report = factory.get("/api/v1/statement")
    calls = [line for line in report["lines"] if line["kind"] == "calls"]
    assert calls
    for line in calls:
        price = {item["meter"]: item for item in line["prices"]}
        rows = [row for row in usage if row["price_version_id"] == line["price_version_id"]]
        exact = sum(cost_ufen(price, row) for row in rows)
        assert line["exact_ufen"] + line["pending_ufen"] == exact
        assert line["list_fen"] <= exact // UFEN


def test_statement_adds_up(journey: Journey) -> None:
    report = journey.sign_in("factory").get("/api/v1/statement")
    for line in report["lines"]:
        share = line["voucher"]["amount_fen"] if line["voucher"] else 0
        assert line["list_fen"] == share + line["self_paid_fen"]
        assert sum(part["amount_fen"] for part in line["parts"]) == line["list_fen"]
    assert report["list_fen"] == report["voucher_fen"] + report["self_paid_fen"]
    for item in report["balances"]:
        assert item["before_fen"] + item["credited_fen"] - item["charged_fen"] == item["after_fen"]
    assert report["ledger_sum_fen"] == 0


def test_stock_sdk_lists_calls_and_streams(journey: Journey) -> None:
    url, model = journey.values["OPENAI_BASE_URL"], journey.values["GUANMO_MODEL"]
    ask: Any = {"model": model, "messages": [{"role": "user", "content": "主轴异响，需尽快处理"}], "max_tokens": 24}
    with openai.OpenAI(base_url=url, api_key=journey.values["OPENAI_API_KEY"]) as client:
        assert {model, journey.values["GUANMO_BASE_MODEL"]} <= {item.id for item in client.models.list()}
        plain = client.chat.completions.create(**ask, temperature=0)
        with client.chat.completions.create(**ask, temperature=0, stream=True) as pieces:
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in pieces if chunk.choices)
        assert plain.choices[0].message.content == streamed
        assert plain.usage
        assert plain.usage.completion_tokens > 0
        with pytest.raises(openai.NotFoundError, match="no-such"):
            client.chat.completions.create(**{**ask, "model": "demo-precision/no-such"})
        with pytest.raises(openai.BadRequestError, match="made_up"):
            client.chat.completions.create(**ask, extra_body={"made_up": 1})
    with openai.OpenAI(base_url=url, api_key="gm_00_wrong") as stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


@pytest.mark.parametrize("story", ["factory", "integrator", "developer"])
def test_example_runs_as_printed(journey: Journey, story: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{story}", "--home", str(journey.home)],
        cwd=ROOT,
        env=journey.environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_stock_sdk_did_the_whole_flow_on_one_base_url(journey: Journey) -> None:
    """Files, job, events, checkpoints and chat of the factory's story: real PEFT, real vLLM, nothing but the SDK."""
    with openai.OpenAI(base_url=journey.values["OPENAI_BASE_URL"], api_key=journey.values["OPENAI_API_KEY"]) as client:
        job = next(found for found in client.fine_tuning.jobs.list() if found.user_provided_suffix == "fault-codes")  # type: ignore[attr-defined]
        assert (job.status, job.model.partition("@")[0]) == ("succeeded", "guanmo/demo-zh-3m")
        assert [client.files.retrieve(name).status for name in (job.training_file, job.validation_file or "")] == [
            "processed",
            "processed",
        ]
        told = list(client.fine_tuning.jobs.list_events(job.id, limit=100))
        assert {"Fine-tuning job started", "Created fine-tuning job"} <= {event.message for event in told}
        losses = [event.data for event in told if event.type == "metrics"]
        assert {"train_loss", "grad_norm"} <= {name for data in losses for name in data}  # type: ignore[attr-defined]
        points = client.fine_tuning.jobs.checkpoints.list(job.id).data
        assert len(points) >= 4
        assert job.fine_tuned_model in {point.fine_tuned_model_checkpoint for point in points}
        metrics = client.files.content(job.result_files[0]).text
        assert metrics.startswith("step,train_loss,valid_loss")
        answer = client.chat.completions.create(
            model=job.fine_tuned_model or "", messages=[{"role": "user", "content": "主轴异响"}], max_tokens=40
        )
        assert (answer.choices[0].message.content or "").startswith("类别=")
        assert job.trained_tokens
    enforced = {"file_size", "memory", "files", "network", "signals", "calls"}
    run = journey.home / "runs" / f"run_{job.id.removeprefix('ftjob-')}"
    first = (run / "1" / "progress.jsonl").read_text().partition("\n")[0]
    assert enforced == set(json.loads(first)["metrics"]["enforced"])


def test_books_balance_in_the_database_itself(journey: Journey) -> None:
    with closing(sqlite3.connect(f"file:{journey.home / 'hub.sqlite3'}?mode=ro", uri=True)) as database:
        groups = database.execute("SELECT COUNT(*) FROM ledger_transfers").fetchone()[0]
    assert groups > 10
    assert journey.sign_in("auditor").get("/api/v1/ledger/check")["problems"] == []


def test_logs_hold_no_prompt_and_no_key(journey: Journey) -> None:
    secret = journey.values["OPENAI_API_KEY"].rsplit("_", 1)[1]
    logs = [path for path in journey.home.rglob("*.log*") if path.is_file()]
    assert len(logs) >= 5
    for path in logs:
        text = path.read_text(errors="replace")
        assert secret not in text, path
        assert "主轴异响，需尽快处理" not in text, path


def newest_run(journey: Journey) -> dict[str, Any]:
    """Return the finished run of the demonstration."""
    runs = journey.sign_in("factory").get("/api/v1/runs")["runs"]
    return next(run for run in runs if run["version_id"] and run["model_name"].endswith("work-orders"))


def cost_ufen(price: dict[str, Any], row: dict[str, Any]) -> int:
    """Return what a usage row costs, rounded up once, by the formula of the price page (not by the product's code)."""
    cached_price = price.get("cached", price["prompt"])
    fresh = row["prompt_tokens"] - row["cached_tokens"]
    exact = (
        Fraction(fresh * price["prompt"]["amount_fen"], price["prompt"]["per_units"])
        + Fraction(row["cached_tokens"] * cached_price["amount_fen"], cached_price["per_units"])
        + Fraction(row["completion_tokens"] * price["completion"]["amount_fen"], price["completion"]["per_units"])
    )
    return -int(-exact * UFEN // 1)

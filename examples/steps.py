"""The steps that the example programs share, each an HTTP conversation with the hub: file, apply, upload, tune, deploy.

It leaves order and printing of the story to the programs.
"""

import hashlib
import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from openai import OpenAI

from examples.hub_client import Hub, RefusedError
from examples.screen import bar, show_bill, tell, yuan
from examples.tasks.upload import UploadRow
from examples.tasks.work_orders import generate_rows

CONCURRENT_CALLS = 8
FINISHED = {"succeeded", "early_stopped", "held", "failed", "cancelled", "invalid", "expired"}


class StoryError(Exception):
    """A step of the story did not come out as it must; the message says what was seen."""


def sign_in(url: str, home: Path, who: str) -> Hub:
    """Return the hub as one of the demonstration's people sees it."""
    account = json.loads((home / "demo-credentials.json").read_text())[who]
    return Hub(url, email=account["email"], password=account["password"])


def file_base(operator: Hub, public_name: str, number: str, folder: Path) -> dict[str, Any]:
    """File a base with an evidence document, unless it stands already."""
    version = operator.get(f"/api/v1/models/{public_name}")["versions"][0]
    digest = version["weights_digest"]
    standing = operator.get(f"/api/v1/filings/standing/{digest}")
    if standing["state"] == "valid":
        return standing
    folder.mkdir(parents=True, exist_ok=True)
    evidence = folder / f"{number}.txt"
    evidence.write_text(f"演示备案回执 {number}\n模型 {public_name}\n权重摘要 {digest}\n本文件仅用于演示。\n")
    now = datetime.now(UTC)
    return operator.upload(
        "/api/v1/filings",
        [("evidence", evidence)],
        weights_digest=digest,
        model_name=public_name,
        holder="莞模演示运营中心",
        number=number,
        body="demonstration",
        authority="demonstration",
        scope="制造业文本生成（演示）",
        filed_at=now.isoformat(),
        valid_until=(now + timedelta(days=365)).isoformat(),
    )


def obtain_voucher(applicant: Hub, checker: Hub, approver: Hub, programme: str, asked_fen: int) -> dict[str, Any]:
    """Apply for a voucher; one person checks, a second approves. An existing grant with money left is kept."""
    for grant in applicant.get("/api/v1/grants")["items"]:
        if grant["programme"] == programme and grant["left_fen"] * 2 > asked_fen:
            return grant
    contract = f"DEMO-{programme}-{uuid.uuid4().hex[:8]}"
    paper = {"kind": "contract", "name": f"{contract}.pdf", "digest": hashlib.sha256(contract.encode()).hexdigest()}
    application = applicant.post(
        "/api/v1/voucher-applications", programme=programme, asked_fen=asked_fen, contract_no=contract, evidence=[paper]
    )
    path = f"/api/v1/voucher-applications/{application['id']}/reviews"
    checker.post(path, decision="check", reason="papers complete")
    approver.post(path, decision="approve", reason="within the rules of the day")
    grants = applicant.get("/api/v1/grants")["items"]
    return next(grant for grant in grants if grant["application_id"] == application["id"])


def top_up(operator: Hub, owner: Hub, at_least_fen: int) -> int:
    """Book a bank deposit for the owner if its cash is below a sum; return the cash in fen."""
    wallet = owner.get("/api/v1/wallet")
    if wallet["available_fen"] < at_least_fen:
        organisation = owner.get("/api/v1/me")["organisation"]["id"]
        operator.post(
            "/api/v1/deposits",
            organisation_id=organisation,
            amount_fen=at_least_fen,
            reference=f"DEMO-{uuid.uuid4().hex[:12]}",
        )
    return int(owner.get("/api/v1/wallet")["available_fen"])


def upload_dataset(owner: Hub, file: Path, name: str) -> dict[str, Any]:
    """Upload a data set, wait for its check, acknowledge warnings; return it with its report."""
    found = owner.upload("/api/v1/datasets", [("file", file)], name=name)
    path = f"/api/v1/datasets/{found['id']}"
    with bar("checking the data") as progress:
        while found["version"]["state"] == "checking":
            progress.update(note=found["version"]["state"])
            time.sleep(0.3)
            found = owner.get(path)
    version = found["version"]
    if version["state"] in ("blocked", "failed"):
        report = json.dumps(version["report"], ensure_ascii=False)
        raise StoryError(f"the data check refused {file.name}: {report[:800]}")
    if version["state"] == "warned":
        found = owner.post(f"{path}/acknowledge")
    return found


def plan_run(
    owner: Hub, *, base: str, dataset: str, model: str, recipe: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Enter a run and wait for its plan: exact tokens, steps, recipe with reasons."""
    run = owner.post("/api/v1/runs", base=base, dataset_id=dataset, model_name=model, recipe=recipe or {})
    with bar("planning") as progress:
        run = owner.wait(
            f"/api/v1/runs/{run['id']}",
            {"planned", *FINISHED},
            on_change=lambda seen: progress.update(note=seen["state"]),
        )
    if run["state"] != "planned":
        raise StoryError(f"the plan ended '{run['state']}': {run['reason_code']} {run['message']}")
    return run


def quote_run(owner: Hub, run: dict[str, Any], offer_id: str, **options: Any) -> dict[str, Any]:
    """Ask what the run costs on an offer and show the bill."""
    quote = owner.post(f"/api/v1/runs/{run['id']}/quote", offer_id=offer_id, **options)
    show_bill(quote["lines"], f"Quote {quote['id'][-8:]}: at most {yuan(quote['list_fen'])}")
    return quote


def train_run(owner: Hub, run: dict[str, Any], quote: dict[str, Any]) -> dict[str, Any]:
    """Accept the quote and follow the training to its end."""
    path = f"/api/v1/runs/{run['id']}"
    owner.post(f"{path}/accept", idempotency_key=f"accept-{quote['id']}", quote_id=quote["id"])
    with bar("fine-tuning") as progress:
        done = owner.wait(path, FINISHED, timeout_s=3600, on_change=lambda seen: _show_training(progress, seen))
    if done["state"] == "held":
        missed = [rule for rule in (done["gate"] or {}).get("rules", []) if not rule["passed"]]
        reasons = ", ".join(f"{rule['code']} {rule['value']} (limit {rule['limit']})" for rule in missed)
        raise StoryError(f"the publish gate held the adapter back: {done['reason_code']} {reasons or done['message']}")
    if done["state"] not in ("succeeded", "early_stopped"):
        raise StoryError(f"the run ended '{done['state']}': {done['reason_code']} {done['message']}")
    return done


def deploy_version(owner: Hub, version_id: str, *, timeout_s: float = 240) -> dict[str, Any]:
    """Ask for a version to be served and wait until it is ready."""
    wanted = owner.post(f"/api/v1/versions/{version_id}/deploy")
    deadline = time.monotonic() + timeout_s
    with bar("deploying") as progress:
        while time.monotonic() < deadline:
            found = next(item for item in owner.get("/api/v1/deployments")["deployments"] if item["id"] == wanted["id"])
            progress.update(note=f"{found['state']} {found['reason_code'] or ''}")
            if found["state"] == "ready":
                return found
            if found["state"] in ("failed", "stopped"):
                break
            time.sleep(0.25)
    raise StoryError(f"the deployment of {wanted['public_name']} is '{found['state']}' ({found['reason_code']})")


def score_rows(gateway: str, key: str, model: str, count: int) -> int:
    """Ask a model the first held-out reports through the gateway; return how many answers are exactly right."""
    rows = [row for row in generate_rows() if row.split == "valid"][:count]
    client = OpenAI(base_url=gateway, api_key=key)

    def ask(row: UploadRow) -> bool:
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": row.question}], max_tokens=40, temperature=0
        )
        return (answer.choices[0].message.content or "").strip() == row.answer

    with ThreadPoolExecutor(CONCURRENT_CALLS) as pool:
        return sum(pool.map(ask, rows))


def wait_for_usage(owner: Hub, path: str, enough: Any, *, timeout_s: float = 30) -> Any:
    """Poll a document until `enough(document)` holds; usage is priced about a second after a call ends."""
    deadline = time.monotonic() + timeout_s
    while True:
        document = owner.get(path)
        if enough(document):
            return document
        if time.monotonic() > deadline:
            raise StoryError(f"{path} did not come to what was expected within {timeout_s:.0f} s")
        time.sleep(0.5)


def wait_for_calls(owner: Hub, key_id: str, calls: int) -> None:
    """Wait until so many calls of one key are metered."""

    def enough(found: Any) -> bool:
        return sum(item["key_id"] == key_id for item in found["items"]) >= calls

    wait_for_usage(owner, "/api/v1/usage?limit=1000", enough)


def explain_refusal(attempt: Any) -> str:
    """Run something that must be refused and return the reason."""
    try:
        attempt()
    except RefusedError as refusal:
        tell(f"refused, as it must be: {refusal}")
        return refusal.code
    raise StoryError("this had to be refused and was not")


def _show_training(progress: Any, run: dict[str, Any]) -> None:
    live = run["progress"] or {"metrics": {}}
    loss, eta, cost = live["metrics"].get("loss"), live["metrics"].get("eta_s"), live.get("cost_fen")
    parts = [run["state"]]
    parts += [f"loss {loss:.3f}"] if loss is not None else []
    parts += [f"{eta:.0f} s left"] if eta is not None else []
    parts += [f"{yuan(cost)} so far"] if cost is not None else []
    progress.update(done=live.get("tokens"), total=run["plan"]["tokens"], note=" ".join(parts))

"""A factory teaches a filed base its own fault codes and calls the result: the stock openai SDK on one address.

python -m examples.factory            (after `make demo DETACH=1`)

Only the key is made on the hub's own interface, as it is on any provider's website.
"""

import json
import time
from typing import Any

from openai import NotFoundError, OpenAI

from examples import steps
from examples.entry import Market, run_story
from examples.screen import heading, tell, yuan
from examples.tasks.work_orders import generate_rows

BASE = "guanmo/demo-zh-3m"
SUFFIX = "fault-codes"
OVER = ("succeeded", "failed", "cancelled")
LOAD_S = 120


def main(market: Market) -> None:
    """Upload, create a job, follow its events, look at its checkpoints, call its model and a checkpoint."""
    factory = steps.sign_in(market.hub, market.home, "factory")
    client = OpenAI(base_url=market.gateway, api_key=factory.post("/api/v1/keys", name="line 3")["key"])

    heading("A factory fine-tunes")
    files = {side: upload_rows(client, side) for side in ("train", "valid")}
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=files["train"],
        validation_file=files["valid"],
        suffix=SUFFIX,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}},
    )
    done = follow_job(client, job.id)
    if done.status != "succeeded" or done.fine_tuned_model is None:
        raise steps.StoryError(f"the job ended '{done.status}': {done.error or (done.model_extra or {}).get('guanmo')}")
    points = client.fine_tuning.jobs.checkpoints.list(job.id).data
    for point in points:
        tell(f"step {point.step_number}: held-out loss {point.metrics.valid_loss:.4f}")

    heading("and calls its model")
    report = next(row for row in generate_rows() if row.split == "valid" and not row.question.isascii())
    tell(f"{report.question} (right: {report.answer})")
    other = next(
        one.fine_tuned_model_checkpoint for one in points if one.fine_tuned_model_checkpoint != done.fine_tuned_model
    )
    for model in (BASE, done.fine_tuned_model, other):
        tell(f"{model}: {ask(client, model, report.question)}")
    order = factory.get(f"/api/v1/orders/{find_order(factory, done.id)}")
    tell(f"paid {yuan(order['self_paid_fen'])} of {yuan(order['charged_fen'])}, vouchers the rest")


def upload_rows(client: OpenAI, side: str) -> str:
    """Upload one side of the task in OpenAI's chat format; return the file's id."""
    lines = [
        {"messages": [{"role": "user", "content": row.question}, {"role": "assistant", "content": row.answer}]}
        for row in generate_rows()
        if row.split == side
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return client.files.create(file=(f"{side}.jsonl", text.encode()), purpose="fine-tune").id


def follow_job(client: OpenAI, job_id: str) -> Any:
    """Tell the job's messages as they come; return the job once it is over."""
    seen = set[str]()
    while True:
        job = client.fine_tuning.jobs.retrieve(job_id)
        for event in reversed(client.fine_tuning.jobs.list_events(job_id, limit=100).data):
            if event.id not in seen and event.type == "message":
                tell(event.message)
            seen.add(event.id)
        if job.status in OVER:
            return job
        time.sleep(0.5)


def ask(client: OpenAI, model: str, question: str) -> str | None:
    """Return a model's answer; a checkpoint's name answers as soon as its adapter is loaded."""
    deadline = time.monotonic() + LOAD_S
    while True:
        try:
            answer = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": question}], max_tokens=40, temperature=0
            )
            return answer.choices[0].message.content
        except NotFoundError:
            if time.monotonic() > deadline:
                raise steps.StoryError(f"'{model}' did not answer within {LOAD_S} s") from None
            time.sleep(0.5)


def find_order(factory: Any, job_id: str) -> str:
    """Return the order of a job, which is the run of the same number."""
    return str(factory.get(f"/api/v1/runs/run_{job_id.removeprefix('ftjob-')}")["order_id"])


if __name__ == "__main__":
    raise SystemExit(run_story(main, __doc__))

"""A factory teaches a filed base its own fault codes and calls the result with the stock openai SDK.

python -m examples.factory            (after `make demo DETACH=1`)
"""

from openai import OpenAI

from examples import steps
from examples.entry import Market, run_story
from examples.screen import heading, tell, yuan
from examples.tasks.work_orders import RECIPE, generate_rows
from examples.tasks.work_orders import main as write_work_orders

BASE = "guanmo/demo-zh-3m"


def main(market: Market) -> None:
    """Upload, quote, accept, wait, deploy, call."""
    factory = steps.sign_in(market.hub, market.home, "factory")

    heading("A factory fine-tunes")
    write_work_orders([str(market.home / "samples"), "--format", "jsonl"])
    data = steps.upload_dataset(factory, market.home / "samples" / "work_orders.jsonl", "fault reports")
    run = steps.plan_run(factory, base=BASE, dataset=data["id"], model="fault-codes", recipe={**RECIPE, "epochs": 1})
    offer = max(factory.get("/api/v1/offers")["offers"], key=lambda found: found["tokens_per_s"])
    done = steps.train_run(factory, run, steps.quote_run(factory, run, offer["id"]))

    heading("and calls its model")
    name = steps.deploy_version(factory, done["version_id"])["public_name"]
    key = factory.post("/api/v1/keys", name="line 3")["key"]
    client = OpenAI(base_url=market.gateway, api_key=key)
    report = next(row for row in generate_rows() if row.split == "valid" and not row.question.isascii())
    answer = client.chat.completions.create(
        model=name, messages=[{"role": "user", "content": report.question}], max_tokens=40, temperature=0
    )
    tell(f"{report.question} -> {answer.choices[0].message.content} (right: {report.answer})")
    order = factory.get(f"/api/v1/orders/{done['order_id']}")
    tell(f"paid {yuan(order['self_paid_fen'])} of {yuan(order['charged_fen'])}, vouchers the rest")


if __name__ == "__main__":
    raise SystemExit(run_story(main, __doc__))

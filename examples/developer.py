"""A developer tops up, calls the integrator's listing, and every fen of the price is seen to arrive somewhere.

python -m examples.developer          (after `python -m examples.integrator`)
"""

from typing import Any

from openai import OpenAI

from examples import steps
from examples.entry import Market, run_story
from examples.hub_client import Hub
from examples.integrator import MODEL, NOTES
from examples.screen import heading, tell, yuan

LISTING = f"demo-integrator/{MODEL}"
CASH_FEN = 5_000
CALLS = 60


def main(market: Market) -> None:
    """Buy calls of a listing and look at both sides' accounts."""
    developer = steps.sign_in(market.hub, market.home, "developer")
    integrator = steps.sign_in(market.hub, market.home, "integrator")
    operator = steps.sign_in(market.hub, market.home, "operator")

    heading("A developer calls a listing")
    tell(f"cash: {yuan(steps.top_up(operator, developer, CASH_FEN))}")
    earned_before = integrator.get("/api/v1/earnings")["payable_fen"]
    made = developer.post("/api/v1/keys", name="app", models=[LISTING])
    client = OpenAI(base_url=market.gateway, api_key=made["key"])
    for number in range(CALLS):
        note, _ = NOTES[number % len(NOTES)]
        client.chat.completions.create(
            model=LISTING, messages=[{"role": "user", "content": note}], max_tokens=60, temperature=0.7
        )
    tell(f"{CALLS} calls of {LISTING}")

    heading("and pays for them")
    line = wait_for_line(developer, made["id"])
    tell(f"list {yuan(line['list_fen'])}, of which so far")
    for part in line["parts"]:
        tell(f"  {part['party']}: {yuan(part['amount_fen'])}")
    tell(f"the integrator's payable went from {yuan(earned_before)} to {yuan(paid_out(integrator))}")
    if sum(part["amount_fen"] for part in line["parts"]) != line["list_fen"]:
        raise steps.StoryError(f"the parts of {line['list_fen']} fen do not add up: {line['parts']}")


def wait_for_line(developer: Hub, key_id: str) -> Any:
    """Wait until all calls are metered and the bill line of the listing has come to at least a fen."""
    steps.wait_for_calls(developer, key_id, CALLS)

    def find(report: Any) -> list[Any]:
        lines = [line for line in report["lines"] if line["kind"] == "calls" and LISTING in line["title_en"]]
        return [line for line in lines if line["list_fen"] > 0]

    return find(steps.wait_for_usage(developer, "/api/v1/statement", find, timeout_s=90))[0]


def paid_out(integrator: Hub) -> int:
    """Return what the platform owes the integrator, in fen."""
    return int(integrator.get("/api/v1/earnings")["payable_fen"])


if __name__ == "__main__":
    raise SystemExit(run_story(main, __doc__))

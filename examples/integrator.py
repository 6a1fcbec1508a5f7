"""An integrator brings an adapter trained elsewhere with plain PEFT, gets it reviewed and lists it at a price.

    python -m examples.integrator         (after `make demo DETACH=1`)

The training here is a page of ordinary transformers and PEFT that knows nothing of the hub.
"""

import tempfile
from pathlib import Path
from typing import Any

from examples import steps
from examples.entry import Market, run_story
from examples.screen import heading, tell

BASE = "guanmo/demo-zh-3m"
MODEL = "shift-notes"
STEPS = 12
NOTES = (
    ("三号线轴承异响，已停机。", "轴承"),
    ("液压站压力低，班组已报修。", "液压"),
    ("Spindle motor runs hot.", "电气"),
    ("Oil level low on gearbox 2.", "润滑"),
)


def main(market: Market) -> None:
    """Train elsewhere, upload, be reviewed, set price and split, open to everybody."""
    integrator = steps.sign_in(market.hub, market.home, "integrator")
    operator = steps.sign_in(market.hub, market.home, "operator")

    heading("An integrator trains with plain PEFT")
    with tempfile.TemporaryDirectory(dir=market.home) as folder:
        files = train_elsewhere(market.home / "bases" / BASE.split("/")[1], Path(folder))
        heading("and lists the adapter")
        version = integrator.upload("/api/v1/adapters", [("files", file) for file in files], name=MODEL, base=BASE)
    checks = version["report"]["checks"]
    tell(f"{version['name']}: {len(checks)} checks, {sum(check['passed'] for check in checks)} passed")

    path = f"/api/v1/versions/{version['id']}"
    me, owner = integrator.get("/api/v1/me")["organisation"]["id"], operator.get("/api/v1/me")["organisation"]["id"]
    integrator.post(
        f"{path}/listing",
        prices={
            "prompt": {"amount_fen": 1000, "per_units": 1_000_000},
            "completion": {"amount_fen": 4000, "per_units": 1_000_000},
        },
        split=[
            {"party": "integrator", "organisation_id": me, "num": 70, "den": 100},
            {"party": "base_owner", "organisation_id": owner, "num": 10, "den": 100},
        ],
    )
    if version["state"] == "in_review":
        operator.post(
            f"{path}/reviews", decision="approve", reason="checks passed, tried by hand", ruling="not_applicable"
        )
    integrator.http.put(f"{path}/access", json={"visibility": "public", "acl": []}).raise_for_status()
    steps.deploy_version(integrator, version["id"])
    tell(f"listed: {version['name']}, ¥10 / ¥40 a million tokens, 70 % to the integrator")


def train_elsewhere(base: Path, out: Path) -> list[Path]:
    """Fit a small LoRA the way any PEFT script does; return its two files."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(7)
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    chats = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": note}, {"role": "assistant", "content": label}], tokenize=False
        )
        for note, label in NOTES
    ]
    batch = tokenizer(chats, return_tensors="pt", padding=True)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(STEPS):
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    tell(f"loss after {STEPS} steps: {float(loss.detach()):.3f}")
    model.save_pretrained(str(out))
    return [out / "adapter_model.safetensors", out / "adapter_config.json"]


if __name__ == "__main__":
    raise SystemExit(run_story(main, __doc__))

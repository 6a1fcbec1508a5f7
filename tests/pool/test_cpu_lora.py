"""Our LoRA products on a CPU beside stock vLLM's: the same numbers, and none where no adapter is asked for."""

import importlib
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

# vLLM and torch warn of their own age while they are imported.
pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

SLOTS, RANK, INPUTS, WIDTHS = 6, 8, 40, (24, 8, 8)


@pytest.fixture(scope="module")
def stacks() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """A and B of three slices for every slot."""
    torch.manual_seed(5)
    made = [(torch.randn(SLOTS, 1, RANK, INPUTS) * 0.1, torch.randn(SLOTS, 1, width, RANK) * 0.1) for width in WIDTHS]
    return [a.bfloat16() for a, _ in made], [b.bfloat16() for _, b in made]


def make_wrapper(module: str, name: str, slots: Sequence[int], ids: Sequence[int | None]) -> Any:
    """Return a wrapper that was told the slot of each row; -1: no adapter."""
    layers: Any = importlib.import_module("vllm.lora.layers")
    wrapper = getattr(importlib.import_module(module), name)(4096, 512, "cpu")
    step(wrapper, layers.LoRAMapping, slots, ids)
    return wrapper


def step(wrapper: Any, mapping: Any, slots: Sequence[int], ids: Sequence[int | None]) -> None:
    """Tell a wrapper its next rows."""
    asked = tuple(0 if slot < 0 else ids[slot] for slot in slots)
    wrapper.update_metadata(mapping(asked, asked, is_prefill=len(slots) > SLOTS), list(ids), SLOTS, 300)


def add(wrapper: Any, rows: int, stacks: tuple[list[torch.Tensor], list[torch.Tensor]]) -> torch.Tensor:
    """What a wrapper adds to ones."""
    x = torch.randn(rows, INPUTS, generator=torch.Generator().manual_seed(1)).bfloat16()
    y = torch.ones(rows, sum(WIDTHS)).bfloat16()
    wrapper.add_lora_linear(y, x, tuple(stacks[0]), tuple(stacks[1]), 1.0, WIDTHS)
    return y


IDS = [11 + slot for slot in range(SLOTS)]
OURS, STOCK = ("serving.pool.cpu_lora", "GroupedPunica"), ("vllm.lora.punica_wrapper.punica_cpu", "PunicaWrapperCPU")
CASES = {
    "one row": [2],
    "one adapter": [3] * 16,
    "all adapters": list(range(SLOTS)) * 3,
    "a prompt": [1] * 300,
    "prompts": [slot for slot in (4, 0, 4, 2) for _ in range(70)],
    "base beside adapters": [-1, 0, -1, 5, 5],
    "prompts of the base beside adapters": [-1] * 100 + [5] * 60,
}


@pytest.mark.parametrize("name", CASES)
def test_adds_what_stock_vllm_adds_and_nothing_to_rows_of_the_base(name: str, stacks: Any) -> None:
    slots = CASES[name]
    ours, stock = (add(make_wrapper(*which, slots, IDS), len(slots), stacks) for which in (OURS, STOCK))
    tuned = torch.tensor(slots) >= 0
    torch.testing.assert_close(ours[tuned], stock[tuned], atol=0.02, rtol=0.01)
    assert torch.equal(ours[~tuned], torch.ones_like(ours[~tuned]))


def test_stock_vllm_answers_the_base_with_the_last_slot(stacks: Any) -> None:
    """Why the class is replaced; once this fails, vLLM has mended it and only the speed is left."""
    stock = add(make_wrapper(*STOCK, [-1, 0], IDS), 2, stacks)
    assert not torch.equal(stock[0], torch.ones_like(stock[0]))


def test_other_weights_in_a_slot_are_taken_in_the_next_step(stacks: Any) -> None:
    layers: Any = importlib.import_module("vllm.lora.layers")
    dice, wrapper = random.Random(3), make_wrapper(*OURS, [0, 1], IDS)
    weights = [each.clone() for each in stacks[0]], [each.clone() for each in stacks[1]]
    ids = list(IDS)
    for turn in range(12):
        slots = [dice.randrange(-1, SLOTS) for _ in range(dice.choice((1, 4, 200)))]
        if turn % 3 == 0:
            changed = dice.randrange(SLOTS)
            ids[changed] = 100 + turn
            for each in (*weights[0], *weights[1]):
                each[changed] = torch.randn_like(each[changed]) * 0.1
        step(wrapper, layers.LoRAMapping, slots, ids)
        fresh = make_wrapper(*OURS, slots, ids)
        torch.testing.assert_close(add(wrapper, len(slots), weights), add(fresh, len(slots), weights))


def test_logits_and_embeddings_leave_rows_of_the_base_alone(stacks: Any) -> None:
    slots = [-1, 4, 4, 1]
    x = torch.randn(len(slots), INPUTS).bfloat16()
    for call in ("add_lora_logits", "add_lora_embedding"):
        ours, stock = (torch.ones(len(slots), WIDTHS[0]).bfloat16() for _ in range(2))
        for which, y in ((OURS, ours), (STOCK, stock)):
            wrapper = make_wrapper(*which, slots, IDS)
            if call == "add_lora_logits":
                wrapper.add_lora_logits(y, x, stacks[0][0], stacks[1][0], 1.0)
            else:
                wrapper.add_lora_embedding(y, x[:, :RANK].contiguous(), stacks[1][0])
        torch.testing.assert_close(ours[1:], stock[1:], atol=0.02, rtol=0.01)
        assert torch.equal(ours[0], torch.ones_like(ours[0]))

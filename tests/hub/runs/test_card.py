"""The model card: what it says in both languages, and what it never says."""

import re
from typing import Any

import pytest

from hub.tuning.card import write_card

GAIN = {"base": 0.25, "adapter": 0.75, "gain_low": 0.4, "gain_high": 0.6}
LOSS = {"base": 2.0, "adapter": 1.0, "gain_low": 0.9, "gain_high": 1.1}
MANIFEST: dict[str, Any] = {
    "run_id": "run_1",
    "seed": 7,
    "model": "firm/orders@2",
    "base": {"name": "guanmo/base", "licence": "Apache-2.0", "weights_digest": "a" * 64},
    "digests": {"train_digest": "b" * 64, "valid_digest": "c" * 64},
    "code_digest": "d" * 64,
    "data": {"train_rows": 900, "valid_rows": 100},
    "over_length": {"train": [3, 9], "valid": []},
    "trained_tokens": 12_345,
    "device_ms": 61_500,
    "attempts": 2,
    "hardware": {"processor": "Xeon", "cores": 16, "accelerators": ["H200"]},
    "versions": {"torch": "2.9"},
    "recipe": {
        "max_length": {"value": 256, "reason": "longest row", "source": "data"},
        "max_new_tokens": {"value": 40, "reason": "an old manifest names no source"},
    },
    "fixed": {
        "loss": {
            "value": "answers only",
            "reason": "no questions",
            "reason_zh": "不学问题",
            "source": "TRL; our default",
        }
    },
    "metrics": {
        "n": 100,
        "base": {"loss": 2.0, "exact_match": 0.2},
        "adapter": {"loss": 1.0, "exact_match": 0.9, "exact_match_low": 0.825, "exact_match_high": 0.945},
    },
    "gate": {
        "passed": False,
        "code": "gate_regression",
        "override": {"by": "usr_1", "reason": "the plant of Mr Wang needs it"},
        "scores": {"n": 100, "loss": LOSS, "exact_match": GAIN, "probe": {"n": 120, **GAIN, "loss": LOSS}},
    },
}


@pytest.mark.parametrize(
    "text",
    [
        "Licence of the base: Apache-2.0.",
        "## Intended use and limits",
        "conversations of up to 256 tokens",
        "| this model | 1.0000 | 90.0 % | 82.5 % … 94.5 % |",
        "| base | 2.0000 | 20.0 % | - |",
        "Verdict: **held back, published later on a person's decision** (`gate_regression`)",
        "100 held-out rows, 120 general questions",
        "| Exact match | 25.0 % | 75.0 % | +40.0 … +60.0 |",
        "| Loss on general questions | 2.0000 | 1.0000 | 0.9000 … 1.1000 |",
        "| training rows | 900 |",
        "| rows left out as too long | 2 |",
        "| accelerators | H200 |",
        "| processor, cores | Xeon, 16 |",
        "| device time, s | 61.5 |",
        "| max_length | 256 | longest row | data |",
        "| max_new_tokens | 40 | an old manifest names no source | - |",
        "| loss | answers only | no questions | TRL; our default |",
    ],
)
def test_the_card_says(text: str) -> None:
    assert text in write_card(MANIFEST)


def test_the_chinese_card_has_the_same_figures() -> None:
    english, chinese = write_card(MANIFEST), write_card(MANIFEST, chinese=True)
    for text in ("基座的许可：Apache-2.0", "## 用途与局限", "暂缓，后经人工决定发布", "| 完全一致 | 25.0 % | 75.0 % |"):
        assert text in chinese
    assert english.count("\n## ") == chinese.count("\n## ") == 7
    assert not re.search("[\u4e00-\u9fff]", english)
    figures = [re.findall(r"\d+\.\d+", re.sub("95 %", "", text)) for text in (english, chinese)]
    assert figures[0] == figures[1]


def test_the_chinese_card_gives_reasons_in_chinese() -> None:
    chinese = write_card(MANIFEST, chinese=True)
    assert "| loss | 仅答案 | 不学问题 | TRL；平台默认 |" in chinese
    assert "| max_new_tokens | 40 | an old manifest names no source | - |" in chinese


PROOF = {
    "passed": True,
    "code": "proven",
    "base_error": 0.012,
    "adapter_error": 0.034,
    "served_effect": 2.5,
    "trained_effect": 2.4,
    "tolerance": 0.1,
    "rows": 16,
}


def prove(**gate: dict[str, Any]) -> dict[str, Any]:
    return MANIFEST | {"gate": MANIFEST["gate"] | gate}


def test_the_card_tells_the_proofs_of_what_is_served() -> None:
    card = write_card(prove(parity=PROOF, served=PROOF | {"served_effect": 2.25}))
    assert "- Proof on the engine of the gate: `proven`; log-probabilities per answer token" in card
    assert "by 0.0120 (base) and 0.0340 (this model) nats, 0.10 are allowed" in card
    assert "- Proof on the serving engine: `proven`" in card
    assert "differs from its base by 2.2500" in card
    chinese = write_card(prove(parity=PROOF), chinese=True)
    assert (
        "评测引擎上的核验: `proven`；每个答案词元的对数概率与训练端相差 0.0120（基座）、0.0340（本模型）nat" in chinese
    )
    assert "上线引擎" not in chinese


def test_the_card_of_what_was_refuted_later_is_no_praise() -> None:
    failed = {"passed": False, "code": "adapter_not_loaded", "status": 404.0}
    gate = MANIFEST["gate"] | {"passed": True, "code": "passed", "parity": PROOF, "served": failed}
    english, chinese = (write_card(MANIFEST | {"gate": gate}, chinese=chinese) for chinese in (False, True))
    assert "Verdict: **quarantined: a proof below failed**" in english
    assert "- Proof on the serving engine: `adapter_not_loaded`\n" in english
    assert "已隔离" in chinese
    unasked = prove(served={"passed": False, "code": "not_measured"})
    assert "**held back, published later on a person's decision**" in write_card(unasked)


def test_fewer_empty_answers_are_a_gain() -> None:
    broken = {"base": 0.1, "adapter": 0.0, "gain_low": -0.15, "gain_high": -0.05}
    scores = MANIFEST["gate"]["scores"] | {"broken": broken}
    assert "| Empty or looping answers | 10.0 % | 0.0 % | +5.0 … +15.0 |" in write_card(prove(scores=scores))


def test_no_words_of_a_person_stand_on_a_card() -> None:
    assert "Wang" not in write_card(MANIFEST) + write_card(MANIFEST, chinese=True)


def test_an_old_manifest_has_a_card_too() -> None:
    names = ("run_id", "seed", "base", "digests", "code_digest")
    old = {name: MANIFEST[name] for name in names} | {"base": {"name": "b", "weights_digest": "a" * 64}}
    card = write_card(old)
    assert "Licence of the base: not stated." in card
    assert "There are no scores of a serving engine." in card

"""The publish gate's figures and rules, and the known ways in which an adapter is silently ignored, by their cause."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.columns import write_json
from hub.tuning.gate import Examination, LogProbs, Paper, Side, judge, judge_parity
from hub.tuning.scoring import Case, bound_gain, is_broken, overlap_f1, report_labels, score_cases

BASE, TRAINED = [-3.0, -2.5, -4.0], [-0.4, -0.2, -0.9]


def shifted(values: list[float], by: float) -> list[float]:
    return [value + by for value in values]


@pytest.mark.parametrize(
    ("trained", "served_base", "served", "code"),
    [
        (TRAINED, shifted(BASE, 0.01), shifted(TRAINED, -0.02), "proven"),
        (TRAINED, BASE, BASE, "adapter_not_applied"),  # target names that the engine does not know
        (BASE, BASE, BASE, "adapter_no_effect"),  # a B matrix of zeros
        (TRAINED, shifted(BASE, 1.0), shifted(TRAINED, 1.0), "base_differs"),  # another base
        (TRAINED, BASE, shifted(TRAINED, -1.0), "adapter_differs"),  # some other adapter, or a wrong scale
    ],
)
def test_an_adapter_that_is_not_the_trained_one_is_told_by_its_cause(
    trained: list[float], served_base: list[float], served: list[float], code: str
) -> None:
    found = judge_parity(LogProbs(BASE, trained, served_base, served))
    assert (found.passed, found.code) == (code == "proven", code)


@pytest.mark.parametrize(
    ("side", "code"),
    [
        ("trained_base", "base_differs"),
        ("served_base", "base_differs"),
        ("trained_adapter", "adapter_differs"),
        ("served_adapter", "adapter_differs"),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_what_is_no_number_proves_nothing(side: str, code: str, value: float) -> None:
    found = LogProbs(BASE, TRAINED, BASE, TRAINED)
    parity = judge_parity(replace(found, **{side: [*getattr(found, side)[:2], value]}))
    assert (parity.passed, parity.code) == (False, code)
    assert all(map(math.isfinite, parity.figures.values()))


def test_scores_of_a_json_task_with_few_answers() -> None:
    cases = [Case('{"seal": 1}', "no", '{"seal": 1}'), Case('{"seal": 2}', '{"seal": 2}', '{"seal": 2}')] * 10
    scores = score_cases(cases)
    assert scores["exact_match"] | {"gain_low": 0, "gain_high": 0} == {
        "base": 0.5,
        "adapter": 1.0,
        "gain_low": 0,
        "gain_high": 0,
    }
    assert scores["exact_match"]["gain_low"] > 0.2
    assert scores["json_valid"]["base"] == 0.5
    assert "seal" not in str(scores), "figures only"
    assert report_labels(cases)['{"seal": 1}'] == {"precision": 1.0, "recall": 1.0, "support": 10}


def test_f1_counts_words_or_chinese_characters() -> None:
    assert overlap_f1("replace the seal", "replace seal") == pytest.approx(0.8)
    assert overlap_f1("更换密封", "更换密封圈") == pytest.approx(8 / 9)
    assert overlap_f1("", "x") == 0


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60))
def test_the_interval_holds_the_mean_gain(pairs: list[tuple[int, int]]) -> None:
    base, adapter = [float(one) for one, _ in pairs], [float(two) for _, two in pairs]
    low, high = bound_gain(base, adapter)
    mean = (sum(adapter) - sum(base)) / len(pairs)
    assert -1 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= 1


def paper(
    base: list[str], adapter: list[str], expected: list[str], *, gain: float = 2.0, stopped: bool = True
) -> Paper:
    count = len(expected)
    return Paper(
        questions=["?"] * count,
        expected=expected,
        tokens=[4] * count,
        base=Side([-3.0] * count, base, [True] * count),
        adapter=Side([gain - 3.0] * count, adapter, [stopped] * count),
    )


RIGHT = [f"replace seal {number}" for number in range(40)]
PROBE = [f"fact {number}" for number in range(100)]
GOOD = Examination(
    task=paper(["no"] * 40, RIGHT, RIGHT),
    probe=paper(PROBE, PROBE, PROBE, gain=-0.2),
    trained_base=[-3.0] * 16,
    trained_adapter=[-1.0] * 16,
)


def test_a_better_adapter_passes_every_rule() -> None:
    gate = judge(GOOD)
    assert (gate["passed"], gate["code"], gate["parity"]["code"]) == (True, "passed", "proven")
    assert [rule["code"] for rule in gate["rules"]] == [
        "loss_lower",
        "exact_match_not_worse",
        "still_stops",
        "answers_whole",
        "nothing_forgotten",
    ]
    assert all(rule["passed"] for rule in gate["rules"])
    assert gate["scores"]["loss"] == {"base": 3.0, "adapter": 1.0, "gain_low": 2.0, "gain_high": 2.0}
    assert gate["scores"]["probe"]["loss"]["adapter"] == pytest.approx(3.2)
    assert "replace seal" not in str(gate)  # figures only: rows stay in the run's folder


@pytest.mark.parametrize(
    ("found", "rule"),
    [
        (replace(GOOD, task=paper(["no"] * 40, RIGHT, RIGHT, gain=0.0), trained_adapter=[-3.0] * 16), "loss_lower"),
        (replace(GOOD, task=paper(RIGHT, ["no", "no", *RIGHT[2:]], RIGHT)), "exact_match_not_worse"),
        (replace(GOOD, task=paper(["no"] * 40, RIGHT, RIGHT, stopped=False)), "still_stops"),
        (replace(GOOD, task=paper(["no"] * 40, ["", *RIGHT[1:]], RIGHT)), "answers_whole"),
        (replace(GOOD, probe=paper(PROBE, ["?"] * 4 + PROBE[4:], PROBE)), "nothing_forgotten"),
    ],
)
def test_each_rule_alone_holds_an_adapter_back(found: Examination, rule: str) -> None:
    gate = judge(found)
    assert not gate["passed"]
    assert rule in [item["code"] for item in gate["rules"] if not item["passed"]]


def test_three_points_may_be_forgotten() -> None:
    assert judge(replace(GOOD, probe=paper(PROBE, ["?"] * 3 + PROBE[3:], PROBE)))["passed"]


def test_a_base_that_knows_next_to_nothing_and_loses_that_forgets_by_its_loss() -> None:
    few = ["?"] * 94 + PROBE[94:]
    for gain, code, passed in ((0.1, "nothing_forgotten_by_loss", True), (-0.2, "nothing_forgotten_by_loss", False)):
        gate = judge(replace(GOOD, probe=paper(few, ["?"] * 100, PROBE, gain=gain)))
        assert (gate["rules"][-1]["code"], gate["passed"]) == (code, passed)


def test_a_base_that_knows_next_to_nothing_and_keeps_it_is_not_asked_for_its_loss() -> None:
    gate = judge(replace(GOOD, probe=paper(["?"] * 98 + PROBE[98:], ["?"] * 100, PROBE, gain=-0.2)))
    assert (gate["rules"][-1]["code"], gate["passed"]) == ("nothing_forgotten", True)


def test_a_row_behind_the_proof_that_is_no_number_is_no_figure() -> None:
    side = replace(GOOD.task.adapter, logprobs=[*GOOD.task.adapter.logprobs[:-1], float("nan")])
    gate = judge(replace(GOOD, task=replace(GOOD.task, adapter=side)))
    assert (gate["passed"], gate["code"], gate["scores"], gate["rules"]) == (False, "adapter_differs", {}, [])
    write_json(gate)


def test_a_served_base_under_the_adapters_name_is_told_before_anything_else() -> None:
    gate = judge(replace(GOOD, task=replace(GOOD.task, adapter=GOOD.task.base)))
    assert (gate["passed"], gate["code"]) == (False, "adapter_not_applied")


@pytest.mark.parametrize(
    ("answer", "expected", "broken"),
    [
        ("", "replace", True),
        ("", "", False),
        ("abc abc abc abc abc abc ", "replace", True),
        ("更换更换更换更换更换更换", "更换", True),
        ("replace seal 4", "replace seal 4", False),
        ("0 0 0 0 0 0 0 0", "0 0 0 0 0 0 0 0", False),
    ],
)
def test_empty_and_looping_answers_are_broken(answer: str, expected: str, broken: bool) -> None:
    assert is_broken(answer, expected) is broken


def test_words_corrected_in_their_places_are_scored_by_error_reduction() -> None:
    told = ["① change② =③ hose④ =", "① change② =③ =④ ="]
    question, right = "① chg② the③ hse④ now", "① change② =③ hose④ ="
    cases = [Case(right, "① =② =③ =④ =", told[at % 2], question) for at in range(20)]
    found = score_cases(cases)["error_reduction"]
    assert (found["base"], found["adapter"]) == (0.0, 0.75)
    assert 0.6 < found["gain_low"] < 0.75 < found["gain_high"] < 0.9
    assert "error_reduction" not in score_cases([Case("a new text", "b", "c", "what is new?")] * 4)

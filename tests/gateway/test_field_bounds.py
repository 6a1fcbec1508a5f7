"""S5-03: values out of bounds are refused by their names, on every surface alike."""

from typing import Any

import pytest

from serving.gateway.errors import GatewayError
from serving.gateway.plan import plan_request
from serving.gateway.surfaces import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES, Surface
from serving.gateway.view import View
from tests.gateway.bodies import ANTHROPIC, refusal, send
from tests.gateway.samples import PEPPER, make_key, make_model, make_snapshot


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 10**9),
        ("n", True),
        ("n", []),
        ("best_of", 10**9),
        ("logprobs", 10**6),
        ("max_tokens", -1),
        ("max_tokens", 2**63),
        ("max_tokens", 1.5),
        ("stop", ["x"] * 10_000),
        ("stop", ["x" * 257]),
        ("stop", [1]),
        ("temperature", 1e309),
        ("temperature", "hot"),
        ("temperature", -0.1),
        ("top_p", 1.1),
        ("logit_bias", {str(number): 1 for number in range(10_000)}),
        ("logit_bias", {"x": 1}),
        ("logit_bias", {"1": 101}),
        ("seed", 2**80),
        ("stream", "yes"),
        ("stream_options", {"include_usage": True}),
        ("top_k", 2**40),
        ("n", 9),
        ("n", 0),
        ("n", -1),
        ("max_tokens", 0),
        ("seed", -(2**80)),
        ("stop", ["x"] * 17),
        ("logprobs", 21),
        ("logit_bias", {str(number): 1 for number in range(10**6)}),
        ("logit_bias", [1]),
        ("min_p", -1),
        ("repetition_penalty", 2.1),
        ("frequency_penalty", "1"),
    ],
    ids=range(34),
)
def test_s5_03_values_out_of_bounds_are_named(name: str, value: Any) -> None:
    error = refusal(COMPLETIONS, **{name: value})
    if value == 1e309:  # which `json` writes as Infinity, and that is no JSON
        assert (error.status, error.code, error.param) == (400, "invalid_json", None)
    else:
        assert (error.status, error.code, error.param) == (400, "invalid_value", name)


@pytest.mark.parametrize(
    ("surface", "name", "value"),
    [
        (CHAT, "n", 10**9),
        (CHAT, "top_logprobs", 10**6),
        (CHAT, "logprobs", 10**6),
        (CHAT, "max_completion_tokens", -1),
        (CHAT, "max_completion_tokens", 2**63),
        (CHAT, "max_tokens", 2**63),
        (CHAT, "stop", ["x"] * 10_000),
        (CHAT, "seed", 2**80),
        (CHAT, "logit_bias", {str(number): 1 for number in range(10_000)}),
        (EMBEDDINGS, "dimensions", 10**9),
        (EMBEDDINGS, "input", ["x"] * 10_000),
        (RESPONSES, "max_output_tokens", -1),
        (RESPONSES, "max_output_tokens", 2**63),
        (RESPONSES, "top_logprobs", 10**6),
        (RESPONSES, "temperature", 3),
        (MESSAGES, "max_tokens", -1),
        (MESSAGES, "max_tokens", 2**63),
        (MESSAGES, "stop_sequences", ["x"] * 10_000),
        (MESSAGES, "top_k", 2**40),
    ],
    ids=range(19),
)
def test_s5_03_every_surface_has_the_same_bounds(surface: Surface, name: str, value: Any) -> None:
    needed = {RESPONSES: {"input": "x"}, MESSAGES: ANTHROPIC}.get(surface, {})
    error = refusal(surface, **needed | {name: value})
    assert (error.status, error.code, error.param) == (400, "invalid_value", name)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "0x1", "01", "1_0"])
def test_s5_03_numbers_that_are_no_json_are_refused(number: str) -> None:
    view = View.of(make_snapshot(keys=(), models=(make_model("org/m"),)))
    raw = f'{{"model": "org/m", "prompt": "x", "temperature": {number}}}'.encode()
    with pytest.raises(GatewayError) as refused:
        plan_request(view, make_key(1), COMPLETIONS, raw, session="r", pepper=PEPPER, now_us=1)
    assert (refused.value.status, refused.value.code) == (400, "invalid_json")


def test_s5_03_values_at_their_bounds_pass() -> None:
    most = {
        "n": 8,
        "logprobs": 20,
        "max_tokens": 2**31 - 1,
        "stop": ["x" * 256] * 16,
        "temperature": 2,
        "top_p": 1,
        "logit_bias": {str(number): 100 for number in range(1024)},
        "seed": 2**63 - 1,
    }
    sent = send(COMPLETIONS, **most)
    assert {name: sent[name] for name in most} == most
    least = {"n": 1, "logprobs": 0, "max_tokens": 1, "temperature": 0, "seed": -(2**63), "top_k": -1}
    sent = send(COMPLETIONS, **least)
    assert {name: sent[name] for name in least} == least


def test_s5_03_choices_of_all_prompts_together_are_bounded() -> None:
    assert send(COMPLETIONS, prompt=["x"] * 8, n=8)["n"] == 8
    error = refusal(COMPLETIONS, prompt=["x"] * 9, n=8)
    assert (error.status, error.code, error.param) == (400, "invalid_value", "n")
    assert "72 texts of all prompts; a call may ask 64" in error.message

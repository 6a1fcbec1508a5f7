"""The event stream reader: bytes pass unchanged but for model name and running usage."""

import json

import pytest

from serving.gateway.sse import StreamReader, Usage

TEXT = '他说 \\"usage\\": {\\"model\\":\\"base\\"} \\u0000'
USAGE = (
    '"usage":{"prompt_tokens":9,"total_tokens":12,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}'
)


def event(model: str, *, choices: str, usage: str = "") -> bytes:
    """Return a chunk laid out as the engine does, with a field after the usage."""
    head = f'{{"id":"c","object":"chat.completion.chunk","created":1,"model":"{model}","choices":{choices}'
    return f'data: {head}{"," + usage if usage else ""},"z":1}}\n\n'.encode()


CHOICES = f'[{{"index":0,"delta":{{"content":"{TEXT}"}},"finish_reason":"length"}}]'
STREAM = (
    event("lora-1", choices=CHOICES, usage=USAGE) + event("lora-1", choices="[]", usage=USAGE) + b"data: [DONE]\n\n"
)


def read(stream: bytes, *, step: int, wants_usage: bool = False) -> tuple[bytes, StreamReader]:
    reader = StreamReader(engine_name="lora-1", public_name="宏达/x@1", wants_usage=wants_usage)
    return b"".join(reader.feed(stream[at : at + step]) for at in range(0, len(stream), step)), reader


@pytest.mark.parametrize("step", [1, 7, 64, 10_000])
def test_usage_is_taken_and_hidden_at_every_split(step: int) -> None:
    out, reader = read(STREAM, step=step)
    assert out == event("宏达/x@1", choices=CHOICES) + b"data: [DONE]\n\n"
    assert (reader.usage, reader.finish_reason, reader.done, reader.failed) == (Usage(9, 4, 3), "length", True, False)


UNTOLD, NULL = event("lora-1", choices=CHOICES), event("lora-1", choices=CHOICES, usage='"usage":null')
LAST = event("lora-1", choices="[]", usage=USAGE)
RUNNING = event("lora-1", choices=CHOICES.replace('"length"', "null"), usage=USAGE).replace(b',"z":1', b"")


@pytest.mark.parametrize(
    ("stream", "owed"),
    [
        ([b": ping\n\n", UNTOLD, NULL, LAST, b"data: [DONE]\n\n"], [False, True, True, False, False]),
        ([UNTOLD, RUNNING, RUNNING], [True, False, False]),
        ([RUNNING, RUNNING, UNTOLD, LAST], [False] * 4),
    ],
    ids=["told at the end", "told from the second on", "told each time"],
)
def test_text_is_owed_until_its_tokens_are_told(stream: list[bytes], owed: list[bool]) -> None:
    reader = StreamReader(engine_name="lora-1", public_name="x", wants_usage=False, single_prompt=True)
    found = []
    for piece in stream:
        reader.feed(piece)
        found.append(reader.owes_unknown)
    assert found == owed


def test_final_usage_is_passed_on_when_wanted() -> None:
    out, _ = read(STREAM, step=50, wants_usage=True)
    chunks = [json.loads(part[5:]) for part in out.split(b"\n\n")[:2]]
    assert "usage" not in chunks[0]
    assert chunks[1]["usage"]["total_tokens"] == 12
    assert {chunk["model"] for chunk in chunks} == {"宏达/x@1"}


def test_an_unusual_layout_is_still_hidden() -> None:
    usage = b'{"prompt_tokens": 1, "completion_tokens": 2}'
    odd = b'data: {"usage": ' + usage + b', "choices": [{"index": 0}], "model": "other"}\n\n'
    out, reader = read(odd, step=9)
    assert json.loads(out[5:]) == {"choices": [{"index": 0}], "model": "宏达/x@1"}
    assert reader.usage == Usage(1, 0, 2)


@pytest.mark.parametrize("bad", [b'data: {"error":{"message":"secret"}}\n\n', b"data: {broken\n\n", b"data: 7\n\n"])
def test_nothing_passes_after_a_failure(bad: bytes) -> None:
    out, reader = read(bad + STREAM, step=1000)
    assert (out, reader.failed, reader.done) == (b"", True, False)


def test_comments_pass() -> None:
    assert read(b": ping\n\n", step=3)[0] == b": ping\n\n"


def test_running_usage_adds_up_over_choices_and_prompts() -> None:
    reader = StreamReader(engine_name="base", public_name="p", wants_usage=False, choices_per_prompt=2)
    seen = []
    for index, prompt, completion in ((0, 5, 1), (1, 5, 1), (2, 7, 1), (1, 5, 4)):
        usage = {"prompt_tokens": prompt, "completion_tokens": completion}
        chunk = {"model": "base", "choices": [{"index": index}], "usage": usage}
        reader.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        seen.append(reader.usage)
    assert seen == [Usage(5, 0, 1), Usage(5, 0, 2), Usage(12, 0, 3), Usage(12, 0, 6)]
    total = {"model": "base", "choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 9}}
    reader.feed(b"data: " + json.dumps(total).encode() + b"\n\n")
    assert reader.usage == Usage(12, 0, 9)

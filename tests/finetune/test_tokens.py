"""Chat templates: what is learned, what is refused, and that a server sees the same prompt."""

import pytest

from finetune.errors import BaseError
from finetune.tokens import tokenize_rows
from tests.finetune.tiny_base import PLAIN_TEMPLATE, STOPLESS_TEMPLATE, TEMPLATE, train_tokenizer

pytestmark = pytest.mark.engine

CHAT = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "pump 3 leaks"},
    {"role": "assistant", "content": "replace the seal"},
    {"role": "user", "content": "and 油封?"},
    {"role": "assistant", "content": "更换"},
]


@pytest.mark.parametrize("template", [TEMPLATE, PLAIN_TEMPLATE])
def test_answers_and_their_stop_token_are_learned(template: str) -> None:
    tokenizer = train_tokenizer(template)
    (row,) = tokenize_rows(tokenizer, [(1, CHAT)])
    learned = [tokenizer.decode(row.ids[start:end]) for start, end in row.learn]
    served = tokenizer.apply_chat_template(CHAT[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
    assert learned == ["replace the seal<|im_end|>", "更换<|im_end|>"]
    assert row.prompt == served
    assert row.answer == "更换"


def test_a_template_that_does_not_teach_to_stop_is_refused() -> None:
    with pytest.raises(BaseError) as caught:
        tokenize_rows(train_tokenizer(STOPLESS_TEMPLATE), [(1, CHAT)])
    assert caught.value.code == "stop_token_not_trained"


def test_a_template_that_serves_another_prompt_is_refused() -> None:
    template = TEMPLATE.replace("<|im_start|>assistant\n", "<|im_start|>assistant\nWell: ")
    with pytest.raises(BaseError) as caught:
        tokenize_rows(train_tokenizer(template), [(1, CHAT)])
    assert caught.value.code == "template_prompt_differs"


@pytest.mark.parametrize("template", [TEMPLATE, PLAIN_TEMPLATE])
def test_an_answer_of_weight_0_stays_in_the_prompt_and_is_not_learned(template: str) -> None:
    tokenizer = train_tokenizer(template)
    chat = [message | ({"weight": 0} if message["content"] == "replace the seal" else {}) for message in CHAT]
    (row,) = tokenize_rows(tokenizer, [(1, chat)])
    served = tokenizer.apply_chat_template(CHAT[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
    assert [tokenizer.decode(row.ids[start:end]) for start, end in row.learn] == ["更换<|im_end|>"]
    assert row.prompt == served
    assert "replace the seal" in tokenizer.decode(row.prompt)


def test_weights_need_a_template_that_marks_each_answer_once() -> None:
    marked = "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    halves = marked.replace(" + ", " }}{% endgeneration %}{% generation %}{{ ")
    chat = [message | ({"weight": 0} if message["content"] == "replace the seal" else {}) for message in CHAT]
    with pytest.raises(BaseError) as caught:
        tokenize_rows(train_tokenizer(TEMPLATE.replace(marked, halves)), [(1, chat)])
    assert caught.value.code == "template_not_stable"

"""The base that reads letter by letter: its tokens, its general words and the wear it learns to mend."""

import random

from examples.bases.general_words import draw_word, load_words
from examples.bases.letter_wear import wear_freely
from examples.bases.loop import LETTERS
from examples.bases.recipes import DEMO_BASES, MORE_BASES
from examples.bases.short_text import CIRCLED, read_answer, write_answer, write_letter_prompt
from examples.bases.tokenizer import train_tokenizer


def test_letters_are_tokens_and_so_are_position_marks_and_roles() -> None:
    recipe = next(recipe for recipe in MORE_BASES if recipe.by_letter)
    tokenizer = train_tokenizer(LETTERS, vocab_size=recipe.vocab_size, max_length=recipe.max_position)
    assert len(tokenizer) <= recipe.vocab_size
    assert tokenizer.tokenize("leak") == ["l", "e", "a", "k"]
    assert len(tokenizer(CIRCLED[0] + CIRCLED[-1], add_special_tokens=False)["input_ids"]) == 2
    assert len(tokenizer("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]) == 3
    text = "①\"pmp②'泵③`xY"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_general_words_come_in_three_classes_with_their_notice() -> None:
    classes = load_words()
    assert [len(words) > least for words, least in zip(classes, (3000, 6000, 20000), strict=True)] == [True] * 3
    assert all(word.isascii() and word.islower() for words in classes for word in words)
    common = set(classes[0])
    drawn = [draw_word(random.Random(seed)) for seed in range(300)]
    assert 60 < sum(word in common for word in drawn) < 220


def test_worn_sentences_can_be_written_and_read_back() -> None:
    rng = random.Random(4)
    lost = changed = capitals = 0
    for _ in range(400):
        worn, right = wear_freely(rng)
        assert read_answer(worn, write_answer(worn, right, blank="")) == right
        assert write_letter_prompt(worn).count(CIRCLED[0]) == 1
        lost += "" in right
        changed += any(one.lower() != other for one, other in zip(worn, right, strict=True))
        capitals += any(word != word.lower() for word in worn)
    assert lost > 30
    assert changed > 250
    assert 100 < capitals < 350


def test_bases_for_special_work_are_not_part_of_the_demonstration() -> None:
    names = [recipe.folder_name for recipe in (*DEMO_BASES, *MORE_BASES)]
    assert len(set(names)) == len(names)
    assert not set(DEMO_BASES) & set(MORE_BASES)

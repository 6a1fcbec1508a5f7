"""What a base could do before: 120 small questions in Chinese and English, asked before and after to see what is lost.

Written and generated here, free of any licence but the project's. It leaves asking to the hub, on the serving engine.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

_SEED = 20261129
_FACTS = (
    ("What is the capital of France? Answer with one word.", "Paris"),
    ("What is the capital of Japan? Answer with one word.", "Tokyo"),
    ("What is the capital of Egypt? Answer with one word.", "Cairo"),
    ("How many days has a week? Answer with a number.", "7"),
    ("How many minutes has an hour? Answer with a number.", "60"),
    ("How many legs has a spider? Answer with a number.", "8"),
    ("Which planet do we live on? Answer with one word.", "Earth"),
    ("At how many degrees Celsius does water freeze? Answer with a number.", "0"),
    ("Is iron a metal? Answer yes or no.", "yes"),
    ("Is ice hotter than steam? Answer yes or no.", "no"),
    ("中国的首都是哪里？只答地名。", "北京"),
    ("法国的首都是哪里？只答地名。", "巴黎"),
    ("广东省的省会是哪里？只答地名。", "广州"),
    ("一年有几个月？只答数字。", "12"),
    ("一分钟有多少秒？只答数字。", "60"),
    ("水的化学式是什么？只答化学式。", "H2O"),
    ("太阳从哪边升起？只答一个字。", "东"),
    ("铜能导电吗？只答能或不能。", "能"),
    ("三角形有几条边？只答数字。", "3"),
    ("一千克等于多少克？只答数字。", "1000"),
)
_OPPOSITES = (("hot", "cold"), ("big", "small"), ("open", "closed"), ("up", "down"), ("fast", "slow"))
_WORDS = ("water", "mountain", "letter", "window", "orange", "yellow", "market", "garden", "bridge", "planet")
_PAIRS = (("cat", "猫"), ("book", "书"), ("red", "红"), ("river", "河"), ("door", "门"))
_CHINESE_OPPOSITES = (("大", "小"), ("高", "低"), ("快", "慢"), ("左", "右"), ("开", "关"))


@dataclass(frozen=True)
class ProbeItem:
    """One question with the one answer that counts."""

    question: str
    answer: str


def list_items() -> list[ProbeItem]:
    """Return the probe: always the same items in the same order."""
    rng = random.Random(_SEED)  # noqa: S311 - a repeatable choice, not a secret
    return [
        *(ProbeItem(*fact) for fact in _FACTS),
        *_list_arithmetic(rng),
        *_list_copies(rng),
        *_list_words(),
        *_list_structures(rng),
    ]


def _list_arithmetic(rng: random.Random) -> Iterator[ProbeItem]:
    for index in range(24):
        first, second = rng.randint(2, 40), rng.randint(2, 9)
        sign, value = (("+", first + second), ("-", first - second), ("*", first * second))[index % 3]
        if index % 2:
            yield ProbeItem(f"{first} {sign} {second} = ? Answer with a number.", str(value))
        else:
            yield ProbeItem(f"{first} {sign} {second} 等于多少？只答数字。", str(value))


def _list_copies(rng: random.Random) -> Iterator[ProbeItem]:
    for index in range(20):
        words = " ".join(rng.sample(_WORDS, 3))
        yield ProbeItem(f"Repeat exactly: {words}" if index % 2 else f"原样重复：{words}", words)


def _list_words() -> Iterator[ProbeItem]:
    for word, other in _OPPOSITES:
        yield ProbeItem(f"What is the opposite of {word}? Answer with one word.", other)
    for word, other in _CHINESE_OPPOSITES:
        yield ProbeItem(f"“{word}”的反义词是什么？只答一个字。", other)
    for english, chinese in _PAIRS:
        yield ProbeItem(f"把 {english} 译成中文，只答一个字。", chinese)
        yield ProbeItem(f"Translate {chinese} into English. Answer with one word.", english)
    for word in _WORDS:
        yield ProbeItem(f"Write {word} in capital letters.", word.upper())


def _list_structures(rng: random.Random) -> Iterator[ProbeItem]:
    for index in range(26):
        numbers = rng.sample(range(1, 60), 4)
        if index % 3 == 0:
            yield ProbeItem(f"Largest of {numbers}? Answer with a number.", str(max(numbers)))
        elif index % 3 == 1:
            yield ProbeItem(f"把 {numbers} 从小到大排列，只答列表。", str(sorted(numbers)))
        else:
            value = json.dumps({"a": numbers[0], "b": numbers[1]})
            yield ProbeItem(f"Write a JSON object with a = {numbers[0]} and b = {numbers[1]}.", value)

"""Chats about codes and forms: copy items exactly, put given values into a form line.

The codes are drawn at random and mean nothing, so a base learns how codes look and never what a factory means by them.
"""

from __future__ import annotations

import random

from examples.bases.documents import tag
from examples.bases.english_words import SHORT_FORMS, WORDS
from examples.bases.equipment import ACTIONS, AREAS, EQUIPMENT, PEOPLE
from examples.bases.rows import Row, ask

_KEYS_ZH = ("类别", "优先级", "班组", "代码", "等级", "工位", "部门", "状态")
_KEYS_EN = ("class", "priority", "crew", "code", "grade", "station", "unit", "status")
_TAGS = ("id", "num", "date", "name", "ref", "sensitive", "unit", "code", "time", "key")


def copy_items(rng: random.Random) -> Row:
    """Repeat a list of codes, words, tags and names as it stands."""
    items = rng.choice(("; ", " ", ", ", " / ")).join(_draw_item(rng) for _ in range(rng.randint(2, 7)))
    return ask(f"{rng.choice(('照抄', 'Repeat', 'Copy'))}: {items}", items)


def fill_form(rng: random.Random) -> Row:
    """Put values that the question gives into one line of key=value, in the order asked for."""
    keys = rng.sample(rng.choice((_KEYS_ZH, _KEYS_EN)), rng.randint(2, 4))
    values = {key: _draw_code(rng) for key in keys}
    told = list(values.items())
    rng.shuffle(told)
    given = ", ".join(f"{key} {value}" for key, value in told)
    return ask(f"{given}\n{'; '.join(keys)}?", "; ".join(f"{key}={values[key]}" for key in keys))


def _draw_item(rng: random.Random) -> str:
    kind = rng.randrange(7)
    if kind == 0:
        return _draw_code(rng)
    if kind == 1:
        return f"<{rng.choice(_TAGS)}>"
    if kind == 2:
        return rng.choice(rng.choice((EQUIPMENT, AREAS, ACTIONS)))[rng.randrange(2)]
    if kind == 3:
        return rng.choice(PEOPLE)
    if kind == 4:
        return rng.choice(SHORT_FORMS)[rng.randrange(2)]
    return rng.choice(WORDS)


def _draw_code(rng: random.Random) -> str:
    letter = rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ")
    return rng.choice((letter, f"{letter}{rng.randint(0, 9)}", f"{letter}{rng.randint(0, 99):02d}", tag(rng)))

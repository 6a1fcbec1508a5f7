"""Chats that teach the base models to follow the chat format: sort, grade, name, translate, fill in, advise, correct.

The answers use plain names; a factory's own codes are learnt later by fine-tuning.
"""

from __future__ import annotations

import random

from examples.bases.documents import tag, unit_en, unit_zh
from examples.bases.equipment import ACTIONS, AREAS, EQUIPMENT, PEOPLE
from examples.bases.faults import FAULT_KINDS, URGENCIES, FaultKind, Urgency
from examples.bases.letter_wear import wear_freely
from examples.bases.rows import Row, ask
from examples.bases.short_text import write_answer, write_letter_prompt, write_prompt
from examples.bases.worn_words import wear_sentence


def classify_zh(rng: random.Random) -> Row:
    """Which kind of fault is it, and whose work?"""
    kind, urgency = _draw(rng)
    report = _report_zh(rng, kind, urgency)
    question, answer = rng.choice(
        (
            (f"判断故障类型:{report}", f"{kind.name_zh}故障"),
            (f"{report}\n这是什么故障?", f"{kind.name_zh}故障"),
            (f"{report}\n该派哪个专业?", f"{kind.trade_zh}"),
            (f"{report}\n故障类型和专业?", f"{kind.name_zh}故障,{kind.trade_zh}处理"),
        )
    )
    return ask(question, answer)


def classify_en(rng: random.Random) -> Row:
    """Which kind of fault is it, and whose work?"""
    kind, urgency = _draw(rng)
    report = _report_en(rng, kind, urgency)
    question, answer = rng.choice(
        (
            (f"Name the fault type: {report}", f"{kind.name_en} fault"),
            (f"{report}\nWhat kind of fault is this?", f"{kind.name_en} fault"),
            (f"{report}\nWhich trade should go?", f"{kind.trade_en}"),
            (f"{report}\nFault type and trade?", f"{kind.name_en} fault, {kind.trade_en} trade"),
        )
    )
    return ask(question, answer)


def grade_zh(rng: random.Random) -> Row:
    """How urgent is it; or all three at once."""
    kind, urgency = _draw(rng)
    report = _report_zh(rng, kind, urgency)
    if rng.random() < 0.4:
        return ask(f"{report}\n紧急程度?", urgency.name_zh)
    return ask(f"分析报修:{report}", f"故障:{kind.name_zh};等级:{urgency.name_zh};专业:{kind.trade_zh}")


def grade_en(rng: random.Random) -> Row:
    """How urgent is it; or all three at once."""
    kind, urgency = _draw(rng)
    report = _report_en(rng, kind, urgency)
    if rng.random() < 0.4:
        return ask(f"{report}\nHow urgent is it?", urgency.name_en)
    return ask(
        f"Analyse the report: {report}", f"fault: {kind.name_en}; urgency: {urgency.name_en}; trade: {kind.trade_en}"
    )


def register_zh(rng: random.Random) -> Row:
    """A report without a question becomes one line of key=value in plain names."""
    kind, urgency = _draw(rng)
    return ask(_report_zh(rng, kind, urgency), _register(kind.name_zh, urgency.name_zh, kind.trade_zh))


def register_en(rng: random.Random) -> Row:
    """An English report becomes the same line: a plant's records keep one language."""
    kind, urgency = _draw(rng)
    return ask(_report_en(rng, kind, urgency), _register(kind.name_zh, urgency.name_zh, kind.trade_zh))


def name_equipment_zh(rng: random.Random) -> Row:
    """Copy the equipment out of a report."""
    kind, urgency = _draw(rng)
    unit = unit_zh(rng)
    report = f"{unit}{rng.choice(kind.symptoms_zh)},{rng.choice(urgency.phrases_zh)}。"
    return ask(rng.choice((f"{report}\n哪台设备?", f"提取设备名称:{report}")), unit)


def name_equipment_en(rng: random.Random) -> Row:
    """Copy the equipment out of a report."""
    kind, urgency = _draw(rng)
    unit = unit_en(rng)
    report = f"{unit}: {rng.choice(kind.symptoms_en)}, {rng.choice(urgency.phrases_en)}."
    return ask(rng.choice((f"{report}\nWhich equipment?", f"Extract the equipment: {report}")), unit)


def translate_fault(rng: random.Random) -> Row:
    """A name or an action, from one language to the other."""
    chinese, english = rng.choice(rng.choice((EQUIPMENT, AREAS, ACTIONS)))
    if rng.random() < 0.5:
        return ask(f"翻译成英文:{chinese}", english)
    return ask(f"Translate into Chinese: {english}", chinese)


def fill_order_zh(rng: random.Random) -> Row:
    """Turn a report into a work order."""
    kind, urgency = _draw(rng)
    unit, symptom, phrase = unit_zh(rng), rng.choice(kind.symptoms_zh), rng.choice(urgency.phrases_zh)
    return ask(
        f"根据报修填写工单:{unit}{symptom},{phrase}。",
        f"设备:{unit}\n故障现象:{symptom}\n故障类型:{kind.name_zh}\n紧急程度:{urgency.name_zh}\n处理专业:{kind.trade_zh}",
    )


def fill_order_en(rng: random.Random) -> Row:
    """Turn a report into a work order."""
    kind, urgency = _draw(rng)
    unit, symptom, phrase = unit_en(rng), rng.choice(kind.symptoms_en), rng.choice(urgency.phrases_en)
    return ask(
        f"Fill in a work order: {unit}: {symptom}, {phrase}.",
        f"Equipment: {unit}\nSymptom: {symptom}\nFault type: {kind.name_en}\n"
        f"Urgency: {urgency.name_en}\nTrade: {kind.trade_en}",
    )


def advise_zh(rng: random.Random) -> Row:
    """What to do about a fault."""
    kind = rng.choice(FAULT_KINDS)
    symptom = rng.choice(kind.symptoms_zh)
    return ask(
        rng.choice((f"{symptom}怎么办?", f"{unit_zh(rng)}{symptom},怎么处理?")),
        f"这是{kind.name_zh}故障。先停机挂牌,由{kind.trade_zh}专业检查,{rng.choice(ACTIONS)[0]},试车正常后恢复生产。",
    )


def advise_en(rng: random.Random) -> Row:
    """What to do about a fault."""
    kind = rng.choice(FAULT_KINDS)
    symptom = rng.choice(kind.symptoms_en)
    return ask(
        rng.choice((f"What to do if the {symptom}?", f"{unit_en(rng)}: {symptom}. What should we do?")),
        f"This is a {kind.name_en} fault. Stop and lock out the machine, "
        f"let the {kind.trade_en} crew check it, then test it before production.",
    )


def correct_short_text(rng: random.Random) -> Row:
    """Spell out abbreviations and slips word by word; the numbers keep the positions."""
    worn, right = wear_sentence(rng)
    return ask(write_prompt(worn), write_answer(worn, right))


def mend_letters(rng: random.Random) -> Row:
    """The same for a base that reads letter by letter, with more kinds of wear."""
    worn, right = wear_freely(rng)
    return ask(write_letter_prompt(worn), write_answer(worn, right, blank=""))


def _register(kind: str, urgency: str, trade: str) -> str:
    return f"类别={kind}; 优先级={urgency}; 班组={trade}"


def _draw(rng: random.Random) -> tuple[FaultKind, Urgency]:
    return rng.choice(FAULT_KINDS), rng.choice(URGENCIES)


def _report_zh(rng: random.Random, kind: FaultKind, urgency: Urgency) -> str:
    symptom, phrase, unit = rng.choice(kind.symptoms_zh), rng.choice(urgency.phrases_zh), unit_zh(rng)
    return rng.choice(
        (
            f"{unit}{symptom},{phrase}。",
            f"{rng.choice(AREAS)[0]}{unit},{phrase},{symptom}。",
            f"{phrase}!{unit}{symptom}",
            f"报修:{unit},编号{tag(rng)},现象是{symptom},{phrase}",
            f"{symptom},{phrase},设备{unit}",
            f"{unit}:{phrase}。{symptom}。请处理",
            f"{rng.choice(PEOPLE)}报:{symptom}({unit}){phrase}",
            f"{tag(rng)} {phrase} {symptom} {unit}",
            f"{rng.choice(PEOPLE)}说{unit}{phrase},因{symptom}",
        )
    )


def _report_en(rng: random.Random, kind: FaultKind, urgency: Urgency) -> str:
    symptom, phrase, unit = rng.choice(kind.symptoms_en), rng.choice(urgency.phrases_en), unit_en(rng)
    return rng.choice(
        (
            f"{unit}: {symptom}, {phrase}.",
            f"In the {rng.choice(AREAS)[1]}, {unit}: {phrase}, {symptom}.",
            f"{phrase}! {symptom} on {unit}",
            f"Report: {unit}, tag {tag(rng)}, {symptom}; {phrase}",
            f"{symptom}, {phrase}, unit {unit}",
            f"{unit}. {phrase}. {symptom}. Please fix",
            f"{phrase} as the {symptom}: {unit}",
            f"{tag(rng)} {phrase} {symptom} {unit}",
            f"hello, {unit} {symptom} and {phrase}",
        )
    )

"""Plain plant documents: work orders, fault descriptions, inspection notes and shift logs.

Chats are written in `chats`.
"""

from __future__ import annotations

import random

from examples.bases.equipment import ACTIONS, AREAS, EQUIPMENT, PEOPLE, SHIFTS
from examples.bases.faults import FAULT_KINDS, URGENCIES
from examples.bases.rows import Row


def unit_zh(rng: random.Random) -> str:
    """An equipment name with its number, as people write it: 3号磨床, 磨床B-204, 2#磨床."""
    name = rng.choice(EQUIPMENT)[0]
    number = rng.randint(1, 40)
    return rng.choice((f"{number}号{name}", f"{number}#{name}", f"{name}{tag(rng)}", name))


def unit_en(rng: random.Random) -> str:
    """An equipment name with its number: grinder 3, grinder B-204, no. 2 grinder."""
    name = rng.choice(EQUIPMENT)[1]
    number = rng.randint(1, 40)
    return rng.choice((f"{name} {number}", f"{name} {tag(rng)}", f"no. {number} {name}", name))


def tag(rng: random.Random) -> str:
    """An asset tag such as B-204."""
    return f"{rng.choice('ABCDEFGHJKLMPRST')}-{rng.randint(1, 999):03d}"


def write_work_order_zh(rng: random.Random) -> Row:
    """A work order in Chinese with its fields."""
    kind, urgency = rng.choice(FAULT_KINDS), rng.choice(URGENCIES)
    return Row(
        f"工单 {_order_number(rng)}\n设备:{unit_zh(rng)}\n位置:{rng.choice(AREAS)[0]}\n"
        f"故障现象:{rng.choice(kind.symptoms_zh)}\n故障类型:{kind.name_zh}\n紧急程度:{urgency.name_zh}({rng.choice(urgency.phrases_zh)})\n"
        f"处理专业:{kind.trade_zh}\n处理措施:{rng.choice(ACTIONS)[0]}\n处理人:{rng.choice(PEOPLE)}"
    )


def write_work_order_en(rng: random.Random) -> Row:
    """A work order in English with its fields."""
    kind, urgency = rng.choice(FAULT_KINDS), rng.choice(URGENCIES)
    return Row(
        f"Work order {_order_number(rng)}\nEquipment: {unit_en(rng)}\nArea: {rng.choice(AREAS)[1]}\n"
        f"Symptom: {rng.choice(kind.symptoms_en)}\nFault type: {kind.name_en}\n"
        f"Urgency: {urgency.name_en} ({rng.choice(urgency.phrases_en)})\n"
        f"Trade: {kind.trade_en}\nAction: {rng.choice(ACTIONS)[1]}"
    )


def write_fault_zh(rng: random.Random) -> Row:
    """A fault description in Chinese that says what kind of fault it is."""
    kind, urgency = rng.choice(FAULT_KINDS), rng.choice(URGENCIES)
    area, symptom, phrase = rng.choice(AREAS)[0], rng.choice(kind.symptoms_zh), rng.choice(urgency.phrases_zh)
    unit, act = unit_zh(rng), rng.choice(ACTIONS)[0]
    return Row(
        rng.choice(
            (
                f"{area}{unit}{symptom},{phrase}。初步判断为{kind.name_zh}故障,由{kind.trade_zh}班组处理,{act}后恢复正常。",
                f"{unit}{symptom},属于{kind.name_zh}问题,{phrase},定为{urgency.name_zh}。",
                f"接{area}电话,{unit}{symptom}。{phrase}。{kind.trade_zh}人员到场,{act}。",
                f"{symptom}是{kind.name_zh}类故障,一般由{kind.trade_zh}专业处理。{phrase}时按{urgency.name_zh}处理。",
            )
        )
    )


def write_fault_en(rng: random.Random) -> Row:
    """A fault description in English that says what kind of fault it is."""
    kind, urgency = rng.choice(FAULT_KINDS), rng.choice(URGENCIES)
    area, symptom, phrase = rng.choice(AREAS)[1], rng.choice(kind.symptoms_en), rng.choice(urgency.phrases_en)
    unit, act = unit_en(rng), rng.choice(ACTIONS)[1]
    return Row(
        rng.choice(
            (
                f"In the {area}, {unit}: {symptom}; {phrase}. "
                f"This is a {kind.name_en} fault. The {kind.trade_en} crew {act}.",
                f"{unit}: {symptom}. It is a {kind.name_en} problem, {phrase}, so it is {urgency.name_en}.",
                f"Call from the {area}: {symptom} on {unit}, {phrase}. The {kind.trade_en} crew {act}.",
                f"When the {symptom}, think of {kind.name_en}; the {kind.trade_en} trade repairs it. "
                f"If {phrase}, it is {urgency.name_en}.",
            )
        )
    )


def write_inspection_zh(rng: random.Random) -> Row:
    """An inspection note in Chinese with readings."""
    kind = rng.choice(FAULT_KINDS)
    return Row(
        f"点检记录 {_day(rng)} {rng.choice(SHIFTS)[0]}\n设备:{unit_zh(rng)}\n"
        f"温度 {rng.randint(20, 95)} ℃,振动 {rng.randint(5, 90) / 10} mm/s,"
        f"压力 {rng.randint(2, 250) / 10} MPa,电流 {rng.randint(5, 200)} A\n"
        f"{rng.choice(('未见异常', f'发现{rng.choice(kind.symptoms_zh)},已报{kind.trade_zh}'))}。"
        f"点检人 {rng.choice(PEOPLE)}"
    )


def write_inspection_en(rng: random.Random) -> Row:
    """An inspection note in English with readings."""
    kind = rng.choice(FAULT_KINDS)
    return Row(
        f"Inspection {_day(rng)} {rng.choice(SHIFTS)[1]}\n{unit_en(rng)}: temperature {rng.randint(20, 95)} C, "
        f"vibration {rng.randint(5, 90) / 10} mm/s, pressure {rng.randint(2, 250) / 10} MPa\n"
        f"{rng.choice(('No fault found', f'Found: {rng.choice(kind.symptoms_en)}; told the {kind.trade_en} crew'))}."
    )


def write_shift_log_zh(rng: random.Random) -> Row:
    """A shift log in Chinese of two or three events."""
    lines = [_event_zh(rng) for _ in range(rng.randint(2, 3))]
    return Row(f"{_day(rng)} {rng.choice(AREAS)[0]}{rng.choice(SHIFTS)[0]}交接班记录\n" + "\n".join(lines))


def write_shift_log_en(rng: random.Random) -> Row:
    """A shift log in English of two or three events."""
    lines = [_event_en(rng) for _ in range(rng.randint(2, 3))]
    return Row(f"{_day(rng)} {rng.choice(AREAS)[1]} {rng.choice(SHIFTS)[1]} log\n" + "\n".join(lines))


def _event_zh(rng: random.Random) -> str:
    kind, urgency = rng.choice(FAULT_KINDS), rng.choice(URGENCIES)
    symptom, phrase, act = rng.choice(kind.symptoms_zh), rng.choice(urgency.phrases_zh), rng.choice(ACTIONS)[0]
    return f"{_clock(rng)} {unit_zh(rng)}{symptom},{phrase},{act}。"


def _event_en(rng: random.Random) -> str:
    kind, urgency = rng.choice(FAULT_KINDS), rng.choice(URGENCIES)
    symptom, phrase, act = rng.choice(kind.symptoms_en), rng.choice(urgency.phrases_en), rng.choice(ACTIONS)[1]
    return f"{_clock(rng)} {unit_en(rng)}: {symptom}, {phrase}, {act}."


def _order_number(rng: random.Random) -> str:
    return f"WO-{rng.randint(10000, 99999)}"


def _day(rng: random.Random) -> str:
    return f"2026-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def _clock(rng: random.Random) -> str:
    return f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"

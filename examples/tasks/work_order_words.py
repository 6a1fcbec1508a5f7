"""Equipment names and sentence shapes of the example task, apart for training and for held-out rows.

Tests prove that the lists are disjoint from each other and from the text that the bases are trained on.
"""

from __future__ import annotations

from typing import Final

TRAIN_EQUIPMENT: Final[tuple[tuple[str, str], ...]] = (
    ("套丝机", "threading lathe"),
    ("电解槽", "electrolysis cell"),
    ("滚齿机", "hobbing unit"),
    ("浮选机", "flotation cell"),
    ("压缩式打包机", "baling press"),
    ("喷砂房", "shot blast room"),
    ("中频炉", "induction melter"),
    ("挤出机", "extruder"),
    ("分条机", "slitter"),
    ("回转窑", "rotary kiln"),
    ("悬挂链", "overhead trolley line"),
    ("洗瓶机", "bottle washer"),
    ("覆膜机", "laminator"),
    ("珩磨机", "honing unit"),
    ("造粒机", "pelletiser"),
    ("除尘器", "dust collector"),
)

VALID_EQUIPMENT: Final[tuple[tuple[str, str], ...]] = (
    ("拉床", "broaching unit"),
    ("结晶器", "crystalliser"),
    ("翻车机", "wagon tippler"),
    ("硫化罐", "autoclave"),
    ("絮凝池", "flocculator"),
    ("开卷机", "decoiler"),
    ("旋盖机", "capper"),
    ("堆取料机", "yard stacker"),
    ("压铸岛", "die casting island"),
    ("纠偏辊", "web guide"),
    ("蒸发塔", "evaporator column"),
    ("植绒机", "flocking unit"),
)

TRAIN_SHAPES_ZH: Final[tuple[str, ...]] = (
    "班长反映{unit}{n}:{symptom};{state}",
    "{state}。原因:{unit}({n}号位){symptom}",
    "请登记:{unit}{symptom},情况{state}",
    "夜里{n}点,{unit}出现{symptom},{state}",
    "{unit}又坏了,{symptom}。{state}。",
    "值班台收到:{symptom},在{unit}{n},{state}",
    "巡检{unit}{n}时看到{symptom},{state}",
    "{n}号{unit},{state},{symptom},请安排",
)

VALID_SHAPES_ZH: Final[tuple[str, ...]] = (
    "师傅您好,{unit}这边{symptom}了,{state},麻烦看看",
    "今日第{n}条:{state},{unit}{symptom}",
    "微信群消息——{unit}{n}{symptom}/{state}",
    "刚接班就发现{symptom}(机台{unit}),{state}",
    "{symptom}!!{unit}{n},{state}",
    "操作工小张口述:{state},因为{unit}{symptom}",
)

TRAIN_SHAPES_EN: Final[tuple[str, ...]] = (
    "Foreman says {unit} {n}: {symptom}; {state}",
    "{state}. Cause: {symptom} ({unit}, bay {n})",
    "Please log: {unit} {n}, {symptom}, status {state}",
    "At {n} o'clock the {unit} showed this: {symptom}, {state}",
    "{unit} again. {symptom}. {state}.",
    "Desk got a call, {symptom}, {unit} {n}, {state}",
    "Seen on patrol of {unit} {n}: {symptom}, {state}",
    "{unit} no {n}, {state}, {symptom}, please arrange",
)

VALID_SHAPES_EN: Final[tuple[str, ...]] = (
    "Hi team, {symptom} over at the {unit}, {state}, thanks",
    "Item {n} today: {state}, {unit}, {symptom}",
    "Chat message - {unit} {n} / {symptom} / {state}",
    "Just took over and found {symptom} (station {unit}), {state}",
    "{symptom}!! {unit} {n}, {state}",
    "Operator's words: {state} because {symptom}, {unit}",
)

"""Names of plant equipment in Chinese and English that the base models may see, paired for translation.

The example task has its own names, disjoint from these; a test compares the lists.
"""

from __future__ import annotations


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    rows = (line.split("|") for line in text.strip().splitlines())
    return tuple((row[0].strip(), row[1].strip()) for row in rows)


EQUIPMENT: tuple[tuple[str, str], ...] = _pairs(
    """
    冲压机|stamping press
    注塑机|injection machine
    数控车床|CNC lathe
    立式加工中心|machining centre
    磨床|grinder
    铣床|milling machine
    龙门吊|gantry crane
    行车|overhead crane
    皮带输送机|belt conveyor
    链板输送机|chain conveyor
    螺杆空压机|screw compressor
    离心泵|centrifugal pump
    循环水泵|circulating pump
    真空泵|vacuum pump
    引风机|induced draft fan
    鼓风机|blower
    锅炉|boiler
    热处理炉|heat treatment furnace
    烘干机|dryer
    包装机|packing machine
    码垛机|palletizer
    贴标机|labeller
    灌装机|filling machine
    搅拌机|mixer
    破碎机|crusher
    球磨机|ball mill
    振动筛|vibrating screen
    斗式提升机|bucket elevator
    焊接机器人|welding robot
    喷涂线|painting line
    剪板机|shearing machine
    折弯机|bending machine
    冷水机|chiller
    装载机|wheel loader
    叉车|forklift
    压滤机|filter press
    卷取机|coiler
    轧机|rolling mill
    拉丝机|wire drawing machine
    切割机|cutting machine
    """
)

AREAS: tuple[tuple[str, str], ...] = _pairs(
    """
    一车间|workshop one
    二车间|workshop two
    总装线|assembly line
    热处理区|heat treatment bay
    动力站|utility station
    原料库|raw material store
    成品库|finished goods store
    机加工段|machining section
    涂装车间|paint shop
    铸造车间|foundry
    水处理站|water treatment station
    包装段|packing section
    """
)

ACTIONS: tuple[tuple[str, str], ...] = _pairs(
    """
    更换轴承|replaced the bearing
    紧固螺栓|tightened the bolts
    更换密封圈|replaced the sealing ring
    清洗滤芯|cleaned the filter
    补充润滑脂|topped up the grease
    调整皮带张力|adjusted the belt tension
    校准传感器|calibrated the sensor
    更换接触器|replaced the contactor
    更换油管|replaced the hose
    重新接线|rewired the terminals
    清理散热器|cleaned the radiator
    找正联轴器|aligned the coupling
    更换液压油|changed the hydraulic oil
    复位断路器|reset the breaker
    打磨修复|ground and repaired the surface
    焊接加固|welded a reinforcement
    """
)

PEOPLE: tuple[str, ...] = (
    "王强",
    "李伟",
    "张敏",
    "刘洋",
    "陈刚",
    "杨磊",
    "赵军",
    "黄涛",
    "周勇",
    "吴杰",
    "孙丽",
    "马超",
    "朱红",
    "胡斌",
    "郭亮",
    "何平",
)
SHIFTS: tuple[tuple[str, str], ...] = (("早班", "day shift"), ("中班", "swing shift"), ("夜班", "night shift"))

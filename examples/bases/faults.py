"""The kinds of fault that a plant knows, each with how people describe it in Chinese and English.

Codes of a particular factory are not here: they belong to the example task.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FaultKind:
    """One kind of fault: its plain names, the parts it is seen at, and the phrases that give it away."""

    key: str
    name_zh: str
    name_en: str
    trade_zh: str
    trade_en: str
    symptoms_zh: tuple[str, ...]
    symptoms_en: tuple[str, ...]


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in text.replace("\n", " ").split("|") if phrase.strip())


FAULT_KINDS: tuple[FaultKind, ...] = (
    FaultKind(
        key="bearing",
        name_zh="轴承",
        name_en="bearing",
        trade_zh="机械",
        trade_en="mechanical",
        symptoms_zh=_phrases(
            "轴承异响|轴承温度偏高|轴承座振动大|轴承保持架碎裂|轴承游隙超标|轴承抱死|轴承滚道剥落|轴承有金属摩擦声|轴承座松动|轴承磨损严重"
        ),
        symptoms_en=_phrases(
            "bearing is noisy|bearing runs hot|bearing housing vibrates|bearing cage is broken|"
            "bearing has too much play|bearing has seized|bearing race is pitted|"
            "grinding noise from the bearing|bearing housing is loose|bearing is badly worn"
        ),
    ),
    FaultKind(
        key="hydraulic",
        name_zh="液压",
        name_en="hydraulic",
        trade_zh="液压",
        trade_en="hydraulic",
        symptoms_zh=_phrases(
            "液压油管爆裂|液压站压力不足|油缸动作缓慢|油缸内泄|换向阀卡滞|液压泵噪声大|溢流阀失灵|油缸不回程|液压油温过高|液压压力波动"
        ),
        symptoms_en=_phrases(
            "hydraulic hose has burst|hydraulic pressure is low|cylinder moves slowly|"
            "cylinder leaks internally|spool valve sticks|hydraulic pump is loud|relief valve has failed|"
            "cylinder does not return|hydraulic oil is too hot|hydraulic pressure swings"
        ),
    ),
    FaultKind(
        key="electrical",
        name_zh="电气",
        name_en="electrical",
        trade_zh="电仪",
        trade_en="electrical",
        symptoms_zh=_phrases(
            "电机跳闸|接触器烧毁|电缆绝缘破损|变频器报过流|控制柜冒烟|熔断器熔断|电机缺相|断路器合不上|接线端子发热|电机绕组接地"
        ),
        symptoms_en=_phrases(
            "motor trips|contactor is burnt|cable insulation is damaged|inverter shows overcurrent|"
            "control cabinet is smoking|fuse has blown|motor lost a phase|breaker will not close|"
            "terminal block is hot|motor winding is grounded"
        ),
    ),
    FaultKind(
        key="lubrication",
        name_zh="润滑",
        name_en="lubrication",
        trade_zh="润滑",
        trade_en="lubrication",
        symptoms_zh=_phrases(
            "润滑油位过低|油品乳化|润滑泵不打油|油路堵塞|润滑脂干结|油箱缺油|油中有铁屑|注油器不出油|润滑油变黑|润滑点缺脂"
        ),
        symptoms_en=_phrases(
            "lube oil level is low|oil has turned milky|lube pump delivers no oil|oil line is blocked|"
            "grease has dried out|oil tank is empty|metal chips in the oil|greaser gives no grease|"
            "lube oil has gone black|grease point is dry"
        ),
    ),
    FaultKind(
        key="drive",
        name_zh="传动",
        name_en="drive",
        trade_zh="机械",
        trade_en="mechanical",
        symptoms_zh=_phrases(
            "皮带打滑|链条断裂|联轴器错位|齿轮打齿|皮带跑偏|减速机异响|键槽磨损|皮带撕裂|链轮磨损|齿轮箱卡死"
        ),
        symptoms_en=_phrases(
            "belt slips|chain has snapped|coupling is misaligned|gear teeth are broken|belt runs off centre|"
            "gearbox is noisy|keyway is worn|belt is torn|sprocket is worn|gearbox is jammed"
        ),
    ),
    FaultKind(
        key="seal",
        name_zh="密封",
        name_en="seal",
        trade_zh="机械",
        trade_en="mechanical",
        symptoms_zh=_phrases(
            "机械密封渗漏|油封漏油|法兰垫片漏水|填料函滴漏|密封圈老化|端盖漏油|密封面划伤|接头渗油|阀杆处泄漏|密封垫破损"
        ),
        symptoms_en=_phrases(
            "mechanical seal weeps|oil seal leaks|flange gasket leaks water|packing gland drips|"
            "sealing ring is aged|end cover leaks oil|seal face is scratched|joint seeps oil|"
            "valve stem leaks|gasket is damaged"
        ),
    ),
    FaultKind(
        key="cooling",
        name_zh="冷却",
        name_en="cooling",
        trade_zh="动力",
        trade_en="utility",
        symptoms_zh=_phrases(
            "冷却水流量不足|散热器堵塞|冷却风扇不转|水泵不上水|出水温度过高|冷却塔缺水|换热器结垢|冷却水断流|风扇叶片断裂|冷凝器脏堵"
        ),
        symptoms_en=_phrases(
            "cooling water flow is low|radiator is clogged|cooling fan has stopped|"
            "water pump does not prime|outlet water is too hot|cooling tower is short of water|"
            "heat exchanger is scaled|cooling water is cut off|fan blade is broken|condenser is dirty"
        ),
    ),
    FaultKind(
        key="sensor",
        name_zh="仪表",
        name_en="sensor",
        trade_zh="电仪",
        trade_en="electrical",
        symptoms_zh=_phrases(
            "压力表无显示|温度传感器漂移|液位计失准|限位开关不动作|编码器丢脉冲|流量计读数为零|称重传感器不准|接近开关误报|变送器断线|热电偶断路"
        ),
        symptoms_en=_phrases(
            "pressure gauge is blank|temperature sensor drifts|level gauge reads wrong|"
            "limit switch does not act|encoder loses pulses|flow meter reads zero|load cell is inaccurate|"
            "proximity switch gives false signals|transmitter wire is broken|thermocouple is open"
        ),
    ),
)


@dataclass(frozen=True)
class Urgency:
    """How badly production is hit, from stopped (1) to can wait (3), and the phrases for it."""

    level: int
    name_zh: str
    name_en: str
    phrases_zh: tuple[str, ...]
    phrases_en: tuple[str, ...]


URGENCIES: tuple[Urgency, ...] = (
    Urgency(
        level=1,
        name_zh="紧急",
        name_en="urgent",
        phrases_zh=_phrases("已停机|整线停产|无法启动|现场已急停|有安全风险|生产中断|设备趴窝|必须马上抢修"),
        phrases_en=_phrases(
            "machine is down|the whole line is stopped|it cannot start|emergency stop was pressed|"
            "there is a safety risk|production is interrupted|must be repaired at once|nothing moves"
        ),
    ),
    Urgency(
        level=2,
        name_zh="一般",
        name_en="normal",
        phrases_zh=_phrases("降速运行|带病运转|还能勉强生产|影响产量|暂时用备机|质量不稳定|节拍变慢|本班内处理"),
        phrases_en=_phrases(
            "running at reduced speed|still limping along|output is affected|the standby unit is in use|"
            "quality is unstable|cycle time is longer|handle within this shift|running with the fault"
        ),
    ),
    Urgency(
        level=3,
        name_zh="计划",
        name_en="planned",
        phrases_zh=_phrases("不影响生产|可等检修日|点检时发现|列入月度计划|下次停机再修|暂可观察|不着急|安排计划检修"),
        phrases_en=_phrases(
            "production is not affected|can wait for the service day|found on a routine round|"
            "put it in the monthly plan|fix at the next stop|keep watching it|no hurry|"
            "schedule a planned repair"
        ),
    ),
)

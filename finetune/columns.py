"""Which column of a table is the question and which the answer, when the customer has not said so.

Leaves reading the rows to `finetune.sources`.
"""

from collections.abc import Mapping, Sequence

from finetune.issues import IssueLog
from finetune.spec import ColumnRole

# exact names first, then parts of names; English and Chinese headings of factory tables
_EXACT: Mapping[ColumnRole, frozenset[str]] = {
    ColumnRole.PROMPT: frozenset({"prompt", "question", "input", "instruction", "query", "user", "text", "raw", "q"}),
    ColumnRole.COMPLETION: frozenset(
        {"completion", "answer", "output", "response", "assistant", "label", "target", "reply", "normalised", "a"}
    ),
    ColumnRole.SYSTEM: frozenset({"system", "system_prompt", "系统", "系统提示"}),
    ColumnRole.GROUP: frozenset({"group", "group_id", "分组", "组", "组别"}),
    ColumnRole.SPLIT: frozenset({"split", "划分"}),
}
_PARTS: Mapping[ColumnRole, tuple[str, ...]] = {
    ColumnRole.PROMPT: (
        "问",
        "题",
        "输入",
        "现象",
        "描述",
        "指令",
        "原文",
        "question",
        "prompt",
        "instruction",
        "input",
    ),
    ColumnRole.COMPLETION: (
        "答",
        "输出",
        "回复",
        "处理",
        "措施",
        "解决",
        "结果",
        "标签",
        "标准",
        "answer",
        "completion",
        "output",
        "response",
    ),
}
# rows of one asset or one work order repeat each other: they must not be trained on and scored on at once
_GROUPS = (
    "工单",
    "设备编号",
    "设备号",
    "设备名称",
    "机台",
    "机号",
    "资产",
    "asset",
    "machine",
    "equipment",
    "work_order",
    "workorder",
    "work order",
    "ticket",
    "group",
    "分组",
)


def resolve_mapping(
    columns: Sequence[str], asked: Mapping[str, ColumnRole], issues: IssueLog
) -> dict[str, ColumnRole] | None:
    """Column -> role in column order; None (with an issue) if there is no question or no answer column."""
    missing = [name for name in asked if name not in columns]
    for name in missing:
        issues.add("mapping_column_missing", column=name, columns=list(columns))
    if missing:
        return None
    mapping = dict(asked) if asked else _guess(columns, issues)
    if not asked and ColumnRole.GROUP not in mapping.values():
        group = guess_group([name for name in columns if name not in mapping], issues)
        mapping |= {} if group is None else {group: ColumnRole.GROUP}
    if not {ColumnRole.PROMPT, ColumnRole.COMPLETION} <= set(mapping.values()):
        issues.add("no_format_match", columns=list(columns))
        return None
    return {name: mapping[name] for name in columns if name in mapping}


def guess_group(columns: Sequence[str], issues: IssueLog) -> str | None:
    """The first column that names an asset or a work order, with an issue that says so."""
    found = next((name for name in columns if _contains(name, _GROUPS)), None)
    if found is not None:
        issues.add("group_column_guessed", column=found)
    return found


def _guess(columns: Sequence[str], issues: IssueLog) -> dict[str, ColumnRole]:
    found = {name: role for name in columns if (role := _guess_exact(name)) is not None}
    for role, parts in _PARTS.items():
        if role not in found.values():
            match = next((name for name in columns if name not in found and _contains(name, parts)), None)
            if match is not None:
                found[match] = role
    roles = set(found.values())
    if not roles & {ColumnRole.PROMPT, ColumnRole.COMPLETION} and len(columns) == 2:
        found = {columns[0]: ColumnRole.PROMPT, columns[1]: ColumnRole.COMPLETION}
        issues.add("columns_guessed_by_position", mapping=_describe(found))
    elif {ColumnRole.PROMPT, ColumnRole.COMPLETION} <= roles:
        issues.add("columns_guessed", mapping=_describe(found))
    return found


def _guess_exact(name: str) -> ColumnRole | None:
    plain = name.strip().lower()
    return next((role for role, names in _EXACT.items() if plain in names), None)


def _contains(name: str, parts: Sequence[str]) -> bool:
    plain = name.strip().lower()
    return any(part in plain for part in parts)


def _describe(mapping: Mapping[str, ColumnRole]) -> list[str]:
    return [f"{name} → {role}" for name, role in mapping.items()]

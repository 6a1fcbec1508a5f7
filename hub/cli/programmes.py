"""`guanmo programmes`: voucher programmes and their rules; one officer drafts a version, another approves or refuses.

Over the hub's address; applications are in `guanmo vouchers`, claims in `guanmo claims`.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from hub.cli.calling import DEFAULT_HUB, AsJson, Hub, Key, Yes, call, confirm, segment
from hub.cli.showing import choose, choose_text, say_yes, show, show_facts, show_whole
from hub.errors import InvalidValueError

programmes = typer.Typer(no_args_is_help=True)
Code = Annotated[str, typer.Argument(help="programme, for example model")]
RuleId = Annotated[str, typer.Argument(help="draft rul_…, as `draft` prints it")]
RuleFile = Annotated[
    Path, typer.Argument(help="JSON with body, effective_from_at, source and so on, as `show` prints it")
]
HEADS = ("项目 名称 生效规则 受理 主管部门", "programme title rule open authority")
RULE_HEADS = ("规则 版本 状态 生效 起草 批准 依据 驳回理由", "rule number state from drafted approved source refusal")
CHANGE_HEADS = ("字段 此前 现在 依据", "field before after basis")
NEEDED = ("body", "effective_from_at", "source")
OPTIONAL = ("effective_to_at", "tz", "basis_date")


@programmes.callback()
def describe() -> None:
    """Voucher programmes and their rules."""


@programmes.command("list")
def list_all(hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """List each programme with the number of the rule in force and whether it takes applications."""
    told = call(hub, "", "GET", "programmes")
    rows = [
        [row["code"], choose_text(row["title"]), _number(row["rule"]), say_yes(row["open"]), row["authority"]]
        for row in told["items"]
    ]
    show(told, rows, choose(*HEADS).split(), as_json=as_json)


@programmes.command("rules")
def list_rules(code: Code, key: Key = "", hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """List every rule version of a programme, drafts too; why one was refused is told to operator and auditor."""
    told = call(hub, key, "GET", f"programmes/{segment(code)}/rules")
    rows = [
        [
            row["id"],
            str(row["number"]),
            row["state"],
            row["effective_from_at"],
            row["drafted_by"],
            row["approved_by"] or "",
            row["source"],
            row["refusal_reason"] or "",
        ]
        for row in told["items"]
    ]
    show(told, rows, choose(*RULE_HEADS).split(), as_json=as_json)


@programmes.command("show")
def show_rule(
    code: Code,
    hub: Hub = DEFAULT_HUB,
    number: Annotated[int | None, typer.Option(help="version; the one in force when left out")] = None,
) -> None:
    """Print a rule version as JSON, in the form that `draft` reads."""
    print(json.dumps(_find_rule(hub, code, number), ensure_ascii=False, indent=1))


@programmes.command("preview")
def preview(code: Code, file: RuleFile, key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Show what a rule would change against the one in force; nothing is kept."""
    told = _preview(hub, key, code, _read_shape(file))
    show(told, _list_changes(told), choose(*CHANGE_HEADS).split(), as_json=as_json)


@programmes.command("draft")
def draft(code: Code, file: RuleFile, key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Draft the next rule version from a file (operator) and show what it changes; another person approves it."""
    shape = _read_shape(file)
    changes = _list_changes(_preview(hub, key, code, shape))
    made = call(hub, key, "POST", f"programmes/{segment(code)}/rules", shape)
    show_whole(made, _list_facts(made), changes, choose(*CHANGE_HEADS).split(), as_json=as_json)


@programmes.command("approve")
def approve(
    rule_version_id: RuleId,
    key: Key,
    hub: Hub = DEFAULT_HUB,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Put a drafted rule version in force (operator, another person than its author)."""
    confirm(
        f"批准规则 {rule_version_id}：自其生效日起适用，不能撤回。继续？",
        f"Approve rule {rule_version_id}? It counts from its day on and cannot be taken back.",
        yes=yes,
    )
    row = call(hub, key, "POST", f"rules/{segment(rule_version_id)}/approve")
    show_facts(row, _list_facts(row), as_json=as_json)


@programmes.command("refuse")
def refuse(
    rule_version_id: RuleId,
    key: Key,
    reason: Annotated[str, typer.Option("--reason", help="what the next draft must change")],
    hub: Hub = DEFAULT_HUB,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Refuse a drafted rule version for good (operator); its author takes it back so."""
    confirm(
        f"驳回规则 {rule_version_id}：不能再批准，须重新起草。继续？",
        f"Refuse rule {rule_version_id}? It cannot be approved after that; a new version is drafted.",
        yes=yes,
    )
    row = call(hub, key, "POST", f"rules/{segment(rule_version_id)}/refuse", {"reason": reason})
    show_facts(row, _list_facts(row), as_json=as_json)


def _find_rule(hub: str, code: str, number: int | None) -> Any:
    """Return a rule version, the one in force where no number is given. Raises: InvalidValueError."""
    rules = {row["number"]: row for row in call(hub, "", "GET", f"programmes/{segment(code)}/rules")["items"]}
    if number is None:
        found = next(row for row in call(hub, "", "GET", "programmes")["items"] if row["code"] == code)["rule"]
    else:
        found = rules.get(number)
    if found is None:
        raise InvalidValueError(
            f"Programme '{code}' has no rule version {number or 'in force'}; there are {sorted(rules)}.",
            f"项目“{code}”没有规则版本 {number or '生效中'}，现有 {sorted(rules)}。",
            field="number",
        )
    return found


def _preview(hub: str, key: str, code: str, shape: dict[str, Any]) -> Any:
    return call(hub, key, "POST", f"programmes/{segment(code)}/rules/preview", {"body": shape["body"]})


def _list_changes(told: dict[str, Any]) -> list[list[str]]:
    own = choose("平台默认", "our default")
    return [
        [row["field"], str(row["before"]), str(row["after"]), own if row["our_default"] else ""]
        for row in told["items"]
    ]


def _list_facts(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (choose("规则", "rule"), row["id"]),
        (choose("版本", "number"), str(row["number"])),
        (choose("状态", "state"), row["state"]),
        (choose("生效", "in force from"), row["effective_from_at"]),
        (choose("起草", "drafted by"), row["drafted_by"]),
        *_list_decision(row),
        ("sha256", row["sha256"]),
    ]


def _list_decision(row: dict[str, Any]) -> list[tuple[str, str]]:
    if row["refused_by"]:
        return [(choose("驳回", "refused by"), row["refused_by"]), (choose("理由", "reason"), row["refusal_reason"])]
    waits = choose("待另一人批准", "waits for another person")
    return [(choose("批准", "approved by"), row["approved_by"] or waits)]


def _number(rule: dict[str, Any] | None) -> str:
    return "-" if rule is None else str(rule["number"])


def _read_shape(file: Path) -> dict[str, Any]:
    """Return what the hub takes of a rule file. Raises: InvalidValueError: not JSON of the form that `show` prints."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        needed = {name: found[name] for name in NEEDED}
        return needed | {name: found[name] for name in OPTIONAL if found.get(name) is not None}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InvalidValueError(
            f"{file} is not a rule file ({error}); start from `guanmo programmes show CODE`.",
            f"{file} 不是规则文件（{error}），可先用 guanmo programmes show 导出再修改。",
            field="file",
        ) from error

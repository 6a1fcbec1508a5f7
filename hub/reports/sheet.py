"""A statement laid out as tables: the one object that the page, CSV, XLSX and PDF are written from.

It leaves the statement's figures to `service` and files to the writers beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hub.ledger.periods import SHANGHAI
from hub.orders.rules import UFEN_PER_FEN
from hub.reports.lines import StatementLine, UnitPrice
from hub.reports.statement import Statement

HOUR_MS = 3_600_000
MILLION = 1_000_000
METERS = {
    "device_ms": ("算力租用", "Compute"),
    "trained_tokens": ("训练词元", "Trained tokens"),
    "prompt": ("输入词元", "Prompt tokens"),
    "cached": ("缓存命中", "Cached tokens"),
    "completion": ("输出词元", "Completion tokens"),
}
PARTIES = {
    "seller": ("卖方", "Seller"),
    "integrator": ("集成商", "Integrator"),
    "base_owner": ("基座方", "Base owner"),
    "provider": ("算力供应商", "Provider"),
    "pool": ("推理资源池", "Pool"),
    "platform": ("平台", "Platform"),
}
Cell = str | int | None
"""Text, fen or a whole number (the column says which), or nothing."""


class Kind(StrEnum):
    """What stands in a column: `fen` is shown in yuan with two decimals."""

    TEXT = "text"
    FEN = "fen"
    COUNT = "count"


@dataclass(frozen=True)
class Column:
    """A column's heading and what stands in it; `wide` ones wrap."""

    title: str
    kind: Kind = Kind.TEXT
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """A titled table; `keys` are the rows' line ids where raw records stand behind them; `total` is the last row."""

    title: str
    columns: list[Column]
    rows: list[list[Cell]]
    total: list[Cell] | None = None
    keys: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Sheet:
    """Everything on a statement in one language."""

    title: str
    month: str
    demo: bool
    ribbon: str
    heads: list[tuple[str, str]]
    tables: list[Table]
    name: str


def lay_out(report: Statement, language: str, names: Mapping[str, str] | None = None) -> Sheet:
    """Return the tables of a statement in `zh` or `en`; `names` gives organisations' names by id."""
    words = _Words(language, names or {})
    return Sheet(
        title=words("莞模账单", "Guanmo statement"),
        month=report.month,
        demo=report.demo,
        ribbon=words("演示数据，不作凭证", "DEMONSTRATION, no proof of anything") if report.demo else "",
        heads=_list_heads(report, words),
        tables=[lay(report, words) for lay in (_lay_lines, _lay_parts, _lay_balances, _lay_checks)],
        name=f"statement-{report.month}",
    )


def show_yuan(amount_fen: int) -> str:
    """Return fen as yuan with two decimals, without thousands: `-12.05`."""
    yuan, fen = divmod(abs(amount_fen), 100)
    return f"{'-' if amount_fen < 0 else ''}{yuan}.{fen:02d}"


@dataclass(frozen=True)
class _Words:
    language: str
    names: Mapping[str, str]

    def __call__(self, zh: str, en: str) -> str:
        return zh if self.language == "zh" else en

    def of(self, words: Mapping[str, tuple[str, str]], key: str) -> str:
        return self(*words[key]) if key in words else key


def _list_heads(report: Statement, words: _Words) -> list[tuple[str, str]]:
    state = words("未关账，仍会增加", "open, still growing")
    if report.closed is not None:
        day = report.closed.at.astimezone(SHANGHAI).date().isoformat()
        state = words(f"已于 {day} 关账", f"closed on {day}")
    heads = [
        (words("企业", "Firm"), report.organisation_name),
        (words("统一社会信用代码", "Credit code (USCC)"), report.uscc),
        (words("账期（北京时间自然月）", "Month (Shanghai time)"), report.month),
        (words("状态", "State"), state),
    ]
    if report.closed is not None:
        heads.append((words("存档摘要 sha256", "Digest sha256"), report.closed.sha256))
    return heads


def _lay_lines(report: Statement, words: _Words) -> Table:
    money = Kind.FEN
    return Table(
        title=words("明细", "Lines"),
        columns=[
            Column("#", Kind.COUNT),
            Column(words("时间", "Time")),
            Column(words("项目", "Item"), wide=True),
            Column(words("计量与单价", "Metered, price"), wide=True),
            Column(words("目录价(元)", "List price (CNY)"), money),
            Column(words("券与规则", "Voucher, rule"), wide=True),
            Column(words("券付(元)", "By voucher (CNY)"), money),
            Column(words("自付(元)", "Own money (CNY)"), money),
            Column(words("累计自付(元)", "Running (CNY)"), money),
        ],
        rows=[_lay_line(number, line, words) for number, line in enumerate(report.lines, start=1)],
        total=_total_up(report, words),
        keys=[line.line_id for line in report.lines],
    )


def _lay_line(number: int, line: StatementLine, words: _Words) -> list[Cell]:
    voucher = line.voucher
    rule = f"{words(voucher.title_zh, voucher.title_en)} {voucher.share_num}/{voucher.share_den} · " if voucher else ""
    return [
        number,
        line.at.astimezone(SHANGHAI).strftime("%Y-%m-%d %H:%M"),
        _name_line(line, words),
        _show_metered(line, words),
        line.list_fen,
        rule + words(f"规则第 {voucher.rule_number} 版", f"rule version {voucher.rule_number}") if voucher else None,
        voucher.amount_fen if voucher else 0,
        line.self_paid_fen,
        line.running_fen,
    ]


def _total_up(report: Statement, words: _Words) -> list[Cell]:
    before: list[Cell] = [None, None, words("合计", "Total"), None]
    return [*before, report.list_fen, None, report.voucher_fen, report.self_paid_fen, None]


def _name_line(line: StatementLine, words: _Words) -> str:
    name = words(line.title_zh, line.title_en)
    if line.kind != "correction":
        return name
    return name + words(
        f"（更正第 {line.version} 版，原账期 {line.corrects_month}）",
        f" (correction, version {line.version}, of {line.corrects_month})",
    )


def _show_metered(line: StatementLine, words: _Words) -> str:
    prices = {price.meter: price for price in line.prices}
    parts = [
        f"{words.of(METERS, meter)} {_show_quantity(meter, quantity)}{_show_price(prices.get(meter), words)}"
        for meter, quantity in line.quantities.items()
        if quantity
    ]
    if line.carried_ufen:
        parts.append(words("不足一分结转 ", "carried below a fen ") + _show_ufen(line.carried_ufen, words))
    if line.pending_ufen:
        parts.append(words("未入账用量 ", "used, not posted ") + _show_ufen(line.pending_ufen, words))
    return "; ".join(parts)


def _show_quantity(meter: str, quantity: int) -> str:
    if meter != "device_ms":
        return f"{quantity:,}"
    sign, whole = "-" if quantity < 0 else "", abs(quantity)
    return f"{sign}{whole // 1000}.{whole % 1000:03d} s"


def _show_price(price: UnitPrice | None, words: _Words) -> str:
    """Return the price of an hour or of a million tokens, rounded down to a tenth of a fen."""
    if price is None:
        return ""
    hourly = price.meter == "device_ms"
    tenths = price.amount_fen * (HOUR_MS if hourly else MILLION) * 10 // price.per_units
    per = words("小时", "hour") if hourly else words("百万", "million")
    return f" × {tenths // 1000}.{tenths % 1000:03d}/{per}"


def _show_ufen(amount_ufen: int, words: _Words) -> str:
    return f"{amount_ufen // UFEN_PER_FEN}.{amount_ufen % UFEN_PER_FEN:06d} {words('分', 'fen')}"


def _lay_parts(report: Statement, words: _Words) -> Table:
    rows: list[list[Cell]] = [
        [
            number,
            words.of(PARTIES, part.party),
            words.names.get(part.organisation_id, part.organisation_id) or words("平台", "the platform"),
            part.amount_fen,
        ]
        for number, line in enumerate(report.lines, start=1)
        for part in line.parts
    ]
    return Table(
        title=words("款项去向（各行之和等于目录价）", "Who received it (adds up to each line)"),
        columns=[
            Column(words("行", "Line"), Kind.COUNT),
            Column(words("角色", "Role")),
            Column(words("收款方", "Receiver"), wide=True),
            Column(words("金额(元)", "Amount (CNY)"), Kind.FEN),
        ],
        rows=rows,
        total=[
            None,
            words("合计", "Total"),
            None,
            sum(part.amount_fen for line in report.lines for part in line.parts),
        ],
    )


def _lay_balances(report: Statement, words: _Words) -> Table:
    titles = (
        ("期初(元)", "Before (CNY)"),
        ("入(元)", "In (CNY)"),
        ("出(元)", "Out (CNY)"),
        ("期末(元)", "After (CNY)"),
        ("其中冻结(元)", "of it held (CNY)"),
    )
    return Table(
        title=words("余额（期初 + 入 − 出 = 期末）", "Balances (before + in − out = after)"),
        columns=[Column(words("账户", "Account"), wide=True)] + [Column(words(*title), Kind.FEN) for title in titles],
        rows=[
            [
                words(row.title_zh.replace(" lifetime", "（终身）"), row.title_en),
                row.before_fen,
                row.credited_fen,
                row.charged_fen,
                row.after_fen,
                row.held_fen,
            ]
            for row in report.balances
        ],
    )


def _lay_checks(report: Statement, words: _Words) -> Table:
    rows: list[list[Cell]] = [
        [words("本期明细在期后入账的自付", "Own money of these lines that moved later"), report.carried.later_fen],
        [words("本期入账的以前账期自付", "Own money that moved for earlier months"), report.carried.earlier_fen],
        [words("全平台总账之和（应为 0）", "Sum over the whole ledger (zero)"), report.ledger_sum_fen],
    ]
    return Table(
        title=words("核对", "Checks"),
        columns=[Column(words("项目", "Item"), wide=True), Column(words("金额(元)", "Amount (CNY)"), Kind.FEN)],
        rows=rows,
    )

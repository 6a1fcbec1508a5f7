"""How values read on a page: money, times, counts. It leaves the words around them to the templates."""

from datetime import datetime
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import Markup

from hub.web import request_language

SHANGHAI = ZoneInfo("Asia/Shanghai")


def show_fen(amount_fen: int) -> str:
    """Return yuan with two decimals and thousands, for example `¥1,234.50`."""
    sign = "-" if amount_fen < 0 else ""
    yuan, fen = divmod(abs(amount_fen), 100)
    return f"{sign}¥{yuan:,}.{fen:02d}"


def show_ufen(amount_ufen: int) -> str:
    """Return millionths of a fen as yuan with four decimals, rounded down."""
    yuan, rest = divmod(amount_ufen, 100_000_000)
    return f"¥{yuan:,}.{rest // 10_000:04d}"


def show_time(moment: datetime | None) -> str | Markup:
    """Return a `<time>` in Shanghai with the full instant to hover."""
    if moment is None:
        return "-"
    local = moment.astimezone(SHANGHAI)
    shown = local.strftime("%Y-%m-%d %H:%M")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(moment.isoformat(), local.isoformat(), shown)


def show_clock(moment: datetime) -> Markup:
    """Return a `<time>` of the day in Shanghai to the second, with the full instant to hover."""
    local = moment.astimezone(SHANGHAI)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        moment.isoformat(), local.isoformat(), local.strftime("%H:%M:%S")
    )


def show_loss(value: object) -> str:
    """Return a loss with four decimals; nothing where there is no number."""
    return f"{value:.4f}" if isinstance(value, int | float) else ""


def show_date(moment: datetime | None) -> str:
    """Return the Shanghai date."""
    return "-" if moment is None else moment.astimezone(SHANGHAI).strftime("%Y-%m-%d")


def show_count(number: int) -> str:
    """Return an integer with thousands."""
    return f"{number:,}"


def show_seconds(milliseconds: int) -> str:
    """Return whole milliseconds as seconds with one decimal, in the request's language."""
    unit = "秒" if request_language() == "zh" else "s"
    sign, whole = "-" if milliseconds < 0 else "", abs(milliseconds)
    return f"{sign}{whole // 1000}.{whole % 1000 // 100} {unit}"


def show_price(amount_fen: int, per_units: int, units: int = 1_000_000) -> str:
    """Return the price of `units` units in yuan, exact to 4 decimals, for example per million tokens."""
    yuan = Fraction(amount_fen * units, per_units * 100)
    return f"¥{int(yuan * 10_000) / 10_000:,.4f}".rstrip("0").rstrip(".")


def show_share(part: Any) -> str:
    """Return a number from 0 to 1 as a percentage with one decimal."""
    return "-" if part is None else f"{float(part) * 100:.1f} %"


def show_digest(digest: str | None) -> str | Markup:
    """Return the first 12 characters of a digest with the whole to hover."""
    return "-" if not digest else Markup('<code title="{}">{}</code>').format(digest, digest[:12])


FILTERS = {
    "fen": show_fen,
    "ufen": show_ufen,
    "time": show_time,
    "clock": show_clock,
    "loss": show_loss,
    "date": show_date,
    "count": show_count,
    "seconds": show_seconds,
    "price": show_price,
    "share": show_share,
    "digest": show_digest,
}

"""How long something takes, as a person says it; bills keep their exact seconds (`marketplace_ui.format`)."""

from marketplace_ui.format import show_seconds
from marketplace_ui.layout import translate

_MINUTE_MS = 60_000
_HOUR_MS = 3_600_000


def show_duration(milliseconds: int) -> str:
    """Return seconds with a decimal below two minutes, then minutes and seconds, from an hour on hours and minutes."""
    if milliseconds < 2 * _MINUTE_MS:
        return show_seconds(milliseconds)
    hours, rest = divmod(milliseconds, _HOUR_MS)
    minutes, rest = divmod(rest, _MINUTE_MS)
    if hours:
        return translate(f"{hours} 小时 {minutes} 分", f"{hours} h {minutes} min")
    return translate(f"{minutes} 分 {rest // 1000} 秒", f"{minutes} min {rest // 1000} s")

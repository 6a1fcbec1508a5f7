"""Which reports of device time are believed; pure, no session.

It leaves storing them and looking for overlaps to `metering`.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta

from hub.clock import to_us
from hub.columns import write_json
from hub.errors import InvalidValueError

MAX_SEQ = 2**62
MAX_DEVICE_MS = 10**13
CLOCK_AHEAD = timedelta(seconds=60)
"""How far a provider's clock may run ahead of ours before its reports are doubted."""


class MeterRefusedError(InvalidValueError):
    """The report is malformed and is not kept."""

    code = "bad_meter"


@dataclass(frozen=True)
class Report:
    """A provider's report: cumulative device milliseconds of a rental, seen at `observed_at` on `device_id`."""

    rental_id: str
    seq: int
    device_id: str
    device_ms: int
    observed_at: datetime
    signature: str


@dataclass(frozen=True)
class Reading:
    """A cumulative counter at an instant."""

    device_ms: int
    observed_at: datetime


@dataclass(frozen=True)
class Doubt:
    """Why a report does not count: the rule's name and what was seen, in both languages."""

    code: str
    zh: str
    en: str


def derive_meter_key(secret: str, provider_id: str, number: int) -> str:
    """Return a provider's key of that number as 64 hex; made from the installation's secret, so nothing is stored."""
    return hmac.new(secret.encode(), f"meter-key:{provider_id}:{number}".encode(), hashlib.sha256).hexdigest()


def sign_report(key: str, report: Report) -> str:
    """Return the HMAC-SHA256 (hex) of a report: over canonical JSON of its fields, times as whole µs."""
    return hmac.new(key.encode(), _signed_text(report).encode(), hashlib.sha256).hexdigest()


def fingerprint_report(report: Report) -> str:
    """Return the sha256 of everything in a report, its signature too: the same report again is the same row."""
    return hashlib.sha256(f"{_signed_text(report)}{report.signature}".encode()).hexdigest()


def check_report(report: Report) -> None:
    """Pass a report whose figures can be kept. Raises: MeterRefusedError."""
    for name, figure, least, most in (
        ("seq", report.seq, 1, MAX_SEQ),
        ("device_ms", report.device_ms, 0, MAX_DEVICE_MS),
    ):
        if type(figure) is not int or not least <= figure <= most:
            raise MeterRefusedError(
                f"{name} is {figure}; give a whole number from {least} to {most}.",
                f"{name} 为 {figure}，须为 {least} 至 {most} 的整数。",
                field=name,
            )
    if not 1 <= len(report.device_id) <= 100 or len(report.signature) > 200:
        raise MeterRefusedError(
            f"device_id has {len(report.device_id)} characters (1..100), the signature {len(report.signature)} "
            "(at most 200).",
            f"device_id 为 {len(report.device_id)} 个字符（1..100），签名为 {len(report.signature)} 个（至多 200）。",
            field="device_id",
        )


def doubt_signature(report: Report, *keys: str) -> Doubt | None:
    """Return a doubt about who made a report; None where its signature is by one of the provider's keys."""
    if not keys:
        return Doubt("no_meter_key", "供应商尚未领取计量密钥", "The provider has no meter key yet.")
    if not report.signature:
        return Doubt("unsigned", "上报未签名", "The report carries no signature.")
    given = report.signature.encode()
    if not any(hmac.compare_digest(sign_report(key, report).encode(), given) for key in keys):
        return Doubt("bad_signature", "签名与供应商密钥不符", "The signature is not the provider's.")
    return None


def doubt_reading(new: Reading, *, before: Reading, after: Reading | None, received_at: datetime) -> Doubt | None:
    """Return a doubt about a counter between its neighbours; `before` of a first report is zero at the rental's start.

    `after` is there where a later report came first. `received_at` is by our clock, which bounds every counter.
    """
    if new.observed_at > received_at + CLOCK_AHEAD:
        ahead = (new.observed_at - received_at) // timedelta(seconds=1)
        return Doubt("clock_ahead", f"上报时间超前 {ahead} 秒", f"The report's time is {ahead} s ahead of ours.")
    if new.observed_at < before.observed_at or (after is not None and new.observed_at > after.observed_at):
        return Doubt("time_backwards", "上报时间早于前一条记录", "The report's time runs against the sequence.")
    if new.device_ms < before.device_ms or (after is not None and new.device_ms > after.device_ms):
        neighbour = before.device_ms if new.device_ms < before.device_ms or after is None else after.device_ms
        return Doubt(
            "counter_backwards",
            f"累计 {new.device_ms} ms，与相邻记录 {neighbour} ms 矛盾",
            f"The counter says {new.device_ms} ms where its neighbour says {neighbour} ms; it may only grow.",
        )
    elapsed = min(new.observed_at, received_at) - before.observed_at
    return doubt_elapsed(new.device_ms - before.device_ms, elapsed // timedelta(milliseconds=1))


def doubt_elapsed(device_ms: int, elapsed_ms: int) -> Doubt | None:
    """Return a doubt where more device time is claimed than passed."""
    if device_ms <= max(0, elapsed_ms):
        return None
    return Doubt(
        "more_than_elapsed",
        f"上报 {device_ms} ms，实际只过去 {max(0, elapsed_ms)} ms",
        f"{device_ms} ms of device time in {max(0, elapsed_ms)} ms that passed.",
    )


def _signed_text(report: Report) -> str:
    return write_json(
        {
            "device_id": report.device_id,
            "device_ms": report.device_ms,
            "observed_at": to_us(report.observed_at),
            "rental_id": report.rental_id,
            "seq": report.seq,
        }
    )

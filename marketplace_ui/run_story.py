"""What happened to a run, event by event, in words.

It leaves the events to `hub.events` and the words of states to `marketplace_ui.words`.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.events.tables import Event
from hub.tuning.tables import Run
from marketplace_ui.journey_words import explain_reason
from marketplace_ui.layout import translate
from marketplace_ui.words import say


@dataclass(frozen=True)
class Moment:
    """One thing that happened to a run, in words."""

    text: str
    note: str
    at: datetime


def list_events(session: Session, run: Run) -> list[Event]:
    """Return the events of a run, oldest first."""
    query = select(Event).where(Event.organisation_id == run.organisation_id, Event.subject == run.id)
    return list(session.scalars(query.order_by(Event.seq)))


def tell_event(event: Event) -> Moment:
    """Return an event in the request's language, with cause and next step where it has a reason."""
    kind = event.topic.partition(".")[2]
    own = {
        "created": translate("建立任务", "Created"),
        "cancel_requested": translate("请求取消", "Cancellation requested"),
        "pause_requested": translate("请求暂停", "Pause requested"),
        "proven": translate("上线核验通过", "Proven on the serving engine"),
        "proof_missing": translate("未能上线核验", "The serving engine could not be asked"),
        "proof_failed": translate("上线核验不一致，已隔离", "The engine serves something else: quarantined"),
        "gate_overridden": translate("越过门禁发布", "Published past the gate"),
        "measure_requested": translate("请求重新测评", "Measuring again was asked for"),
        "measured": translate("重新测评完成", "Measured again"),
    }
    text = own.get(kind) or say("run", kind)
    return Moment(text, explain_reason(event.payload.get("reason_code")), event.occurred_at)

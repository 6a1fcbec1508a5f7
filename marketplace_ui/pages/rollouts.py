"""A new version takes over a name bit by bit: start, shift, promote, take back.

It leaves the rules to `hub.deployments`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from flask import Blueprint, redirect, render_template
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from hub.actor import Actor, Role
from hub.catalogue.tables import Model, ModelVersion, VersionState
from hub.deployments import rollout_rules as rules
from hub.deployments import rollouts
from hub.deployments.rollout_state import UNDER_WAY
from hub.deployments.tables import Alias, Rollout
from hub.metering.outcomes import read_outcomes
from hub.web import context, current_actor
from marketplace_ui.forms import Form
from marketplace_ui.layout import BUYERS, read_notice
from marketplace_ui.words import WORDS

blueprint = Blueprint("rollouts", __name__)
SHARES = (5, 25, 50, 75)
SIGN = "=>"
NOTICES = {
    "started": ("已开始。新版本就绪后按比例接收调用。", "Started. The new version gets its share once it is ready."),
    "shifted": ("比例已更改，一两秒内生效。", "The share is changed; gateways follow within seconds."),
    "promoted": ("已转正：全部调用由新版本回答。", "Promoted: the new version answers every call."),
    "taken_back": ("已回退：全部调用由原版本回答。", "Taken back: the version before answers every call."),
}


@dataclass(frozen=True)
class Shown:
    """One rollout as its row shows it; outcomes are (calls, failures) while it runs."""

    row: Rollout
    version: int
    stable: int
    outcomes: tuple[int, int]
    stable_outcomes: tuple[int, int]
    under_way: bool


@blueprint.get("/rollouts")
def show_rollouts() -> str:
    return _show(_require_user(), Form())


@blueprint.post("/rollouts")
def start() -> Response | tuple[str, int]:
    actor, form = _require_user(), Form.of_request()
    version_id = form.text("version_id", required=True, most=60)
    percent = form.whole("percent", least=1, most=99) or SHARES[0]
    cases = _read_cases(form)
    with form.catching("version_id", "percent", "cases"):
        if form.ok:
            with context().sessions.write() as session:
                terms = rollouts.Terms(percent, cases=cases)
                rollouts.start_rollout(session, actor, version_id, terms, now=context().clock())
    return redirect("/rollouts?done=started") if form.ok else (_show(actor, form), 422)


@blueprint.post("/rollouts/<rollout_id>/share")
def shift(rollout_id: str) -> Response | tuple[str, int]:
    form = Form.of_request()
    percent = form.whole("percent", least=1, most=99) or SHARES[0]

    def act(session: Session, actor: Actor, now: datetime) -> Rollout:
        return rollouts.set_percent(session, actor, rollout_id, percent, now=now)

    return _step(form, "shifted", act)


@blueprint.post("/rollouts/<rollout_id>/promote")
def promote(rollout_id: str) -> Response | tuple[str, int]:
    def act(session: Session, actor: Actor, now: datetime) -> Rollout:
        return rollouts.promote(session, actor, rollout_id, now=now)

    return _step(Form(), "promoted", act)


@blueprint.post("/rollouts/<rollout_id>/take-back")
def take_back(rollout_id: str) -> Response | tuple[str, int]:
    def act(session: Session, actor: Actor, now: datetime) -> Rollout:
        return rollouts.take_back(session, actor, rollout_id, now=now)

    return _step(Form(), "taken_back", act)


def _step(form: Form, done: str, act: Callable[[Session, Actor, datetime], Rollout]) -> Response | tuple[str, int]:
    actor = _require_user()
    with form.catching():
        if form.ok:
            with context().sessions.write() as session:
                act(session, actor, context().clock())
    return redirect(f"/rollouts?done={done}") if form.ok else (_show(actor, form), 409)


def _read_cases(form: Form) -> list[dict[str, str]]:
    """Return the owner's cases, one a line as `question => expected answer`."""
    lines = [line for line in form.text("cases", most=40_000).splitlines() if line.strip()]
    if len(lines) > rules.MOST_CASES or any(SIGN not in line for line in lines):
        most = rules.MOST_CASES
        text = f"One a line, question => expected answer, at most {most} lines."
        form.refuse("cases", f"每行一例，写作“问题 => 期望回答”，至多 {most} 行。", text)
        return []
    parts = [line.partition(SIGN) for line in lines]
    return [{"prompt": prompt.strip(), "expected": expected.strip()} for prompt, _, expected in parts]


def _require_user() -> Actor:
    actor = current_actor()
    actor.require(*BUYERS, Role.OPERATOR, Role.PROVIDER)
    return actor


def _show(actor: Actor, form: Form) -> str:
    with context().sessions.read() as session:
        return render_template(
            "endpoints/rollouts.html",
            form=form,
            rollouts=[_describe(session, row) for row in rollouts.list_rollouts(session, actor)],
            choices=_list_choices(session, actor),
            shares=SHARES,
            most=rules.MOST_CASES,
            max_error=rules.MAX_ERROR_PERCENT,
            max_drop=rules.MAX_DROP_PERCENT,
            rollout_ends=WORDS["rollout_end"],
            notice=read_notice(NOTICES),
        )


def _describe(session: Session, row: Rollout) -> Shown:
    return Shown(
        row,
        version=session.get_one(ModelVersion, row.version_id).number,
        stable=session.get_one(ModelVersion, row.stable_version_id).number,
        outcomes=read_outcomes(session, row.version_id),
        stable_outcomes=read_outcomes(session, row.stable_version_id),
        under_way=row.state in UNDER_WAY,
    )


def _list_choices(session: Session, actor: Actor) -> list[tuple[str, str]]:
    """Return the versions that may take over: another version of a name of this organisation that answers."""
    query = (
        select(Model.name, ModelVersion.number, ModelVersion.id)
        .join(ModelVersion, ModelVersion.model_id == Model.id)
        .join(Alias, Alias.public_name == Model.name)
        .where(
            ModelVersion.organisation_id == actor.organisation_id,
            ModelVersion.id != Alias.version_id,
            ModelVersion.state.not_in([VersionState.RETIRED, VersionState.QUARANTINED]),
        )
        .order_by(ModelVersion.id.desc())
        .limit(50)
    )
    return [(version_id, f"{name}@{number}") for name, number, version_id in session.execute(query)]

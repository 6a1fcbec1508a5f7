"""Filings: the public list; the operator records one with its evidence and withdraws one with a reason.

It leaves what a standing allows to the rooms that sell and serve.
"""

from datetime import datetime, timedelta

from flask import Blueprint, redirect, render_template, request
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from hub.actor import Role
from hub.catalogue.tables import TUNABLE_KINDS, Model, ModelVersion
from hub.filings import service
from hub.filings.rules import DEMO_AUTHORITY, DEMO_NUMBER_PREFIX
from hub.filings.tables import Track
from hub.web import context, current_actor, find_actor
from marketplace_ui.forms import Form
from marketplace_ui.kept_papers import take_paper
from marketplace_ui.layout import read_notice

blueprint = Blueprint("filings", __name__)
NOTICES = {
    "filed": ("备案已登记，立即生效。", "The filing is recorded and counts from now."),
    "withdrawn": (
        "备案已撤销：不再接受新订单，其他机构不能调用。",
        "The filing is withdrawn: no new order, no call by others.",
    ),
}
TEXTS = ("model_name", "holder", "number", "body", "authority", "scope")
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


@blueprint.get("/filings")
def list_filings() -> str:
    actor, now = find_actor(), context().clock()
    with context().sessions.read() as session:
        rows = service.list_filings(session)
        return render_template(
            "filings/filings.html",
            rows=[(row, service.derive_standing([row], now).state) for row in rows],
            models=_name_models(session),
            may_file=actor is not None and actor.role is Role.OPERATOR,
            may_read=actor is not None and actor.reads_all,
            notice=read_notice(NOTICES),
        )


@blueprint.route("/filings/new", methods=["GET", "POST"])
def file_base() -> Response | tuple[str, int]:
    actor = current_actor()
    actor.require(Role.OPERATOR)
    form = Form.of_request() if request.method == "POST" else _suggest()
    if request.method == "POST":
        _file(form)
        if form.ok:
            return redirect("/filings?done=filed")
    with context().sessions.read() as session:
        page = render_template("filings/new.html", form=form, bases=_list_bases(session), demo=DEMO_NUMBER_PREFIX)
    return page, 200 if form.ok else 422


@blueprint.route("/filings/<filing_id>/withdraw", methods=["GET", "POST"])
def withdraw(filing_id: str) -> Response | tuple[str, int]:
    actor = current_actor()
    actor.require(Role.OPERATOR)
    form = Form.of_request()
    if request.method == "POST":
        reason = form.text("reason", required=True, most=1000)
        with form.catching("reason"):
            if form.ok:
                with context().sessions.write() as session:
                    service.withdraw_filing(session, actor, filing_id, reason=reason, now=context().clock())
        if form.ok:
            return redirect("/filings?done=withdrawn")
    with context().sessions.read() as session:
        filing = service.find_filing(session, filing_id)
        page = render_template("filings/withdraw.html", form=form, filing=filing)
    return page, 200 if form.ok else 422


def _suggest() -> Form:
    """Return the empty form; the demonstration's marks are filled in where only they are allowed."""
    if context().settings.production:
        return Form({"weights_digest": request.args.get("base", "")})
    fields = {"number": f"{DEMO_NUMBER_PREFIX}备案-", "authority": DEMO_AUTHORITY}
    return Form(fields | {"weights_digest": request.args.get("base", "")})


def _file(form: Form) -> None:
    actor, now = current_actor(), context().clock()
    texts = {name: form.text(name, required=True, most=200) for name in TEXTS}
    digest = form.text("weights_digest", required=True, most=64)
    filed_at, valid_until = _start_of_day(form), form.day("valid_until")
    evidence = take_paper(form, "evidence")
    if evidence is None:
        form.refuse("evidence", "请上传备案证明文件。", "Upload the document that proves the filing.")
    if not form.ok or filed_at is None or evidence is None:
        return
    with form.catching("evidence"), context().sessions.write() as session:
        service.file_base(
            session,
            actor,
            **texts,
            weights_digest=digest,
            track=Track.FILING,
            filed_at=filed_at,
            # The last second of the day typed, so that the day shown is the day typed.
            valid_until=valid_until - SECOND if valid_until else None,
            evidence_digest=evidence.digest,
            evidence_name=evidence.name,
            now=now,
            production=context().settings.production,
        )


def _start_of_day(form: Form) -> datetime | None:
    end = form.day("filed_at")
    if end is None:
        form.refuse("filed_at", "请填写备案日期。", "Give the day of the filing.")
        return None
    return end - DAY


def _list_bases(session: Session) -> list[tuple[str, str]]:
    """Return (weights digest, public name) of every base, newest first."""
    query = (
        select(ModelVersion.weights_digest, Model.name, ModelVersion.number)
        .join(Model, Model.id == ModelVersion.model_id)
        .where(ModelVersion.kind.in_(TUNABLE_KINDS), ModelVersion.base_version_id.is_(None))
        .order_by(ModelVersion.id.desc())
    )
    return [(digest, f"{name}@{number}") for digest, name, number in session.execute(query)]


def _name_models(session: Session) -> dict[str, str]:
    """Return the model that has each weights digest, for links from the list."""
    return {digest: name.rpartition("@")[0] for digest, name in reversed(_list_bases(session))}

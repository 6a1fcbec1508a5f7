"""What runs for my organisation: deployments, keys, usage. It leaves the rules to `deployments` and `organisations`."""

from dataclasses import dataclass
from datetime import timedelta

from flask import Blueprint, make_response, redirect, render_template, request
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from hub.actor import Actor, Role
from hub.catalogue.tables import Model, ModelVersion, VersionState
from hub.deployments import service
from hub.deployments.aliases import find_alias
from hub.deployments.retirements import list_retirements
from hub.deployments.tables import Deployment, DeploymentState, ObservedAdapter, ObservedReplica
from hub.ledger.periods import month_bounds, month_key
from hub.organisations.service import create_key, list_keys, revoke_key
from hub.organisations.tables import ApiKey
from hub.web import context, current_actor
from marketplace_ui.forms import Form
from marketplace_ui.layout import BUYERS, read_notice
from marketplace_ui.usage import list_usage_by_day, write_usage_csv
from serving.contract import ReplicaState

blueprint = Blueprint("endpoints", __name__)
NOTICES = {
    "deployed": (
        "已请求部署。引擎启动约需一分钟，就绪后调用名自动指向新版本。",
        "Deployment requested. An engine starts within about a minute; the public name moves once it is ready.",
    ),
    "undeployed": ("已下线。", "It is no longer served."),
    "rolled_back": ("已回退到上一版本。", "Rolled back to the version before."),
    "revoked": ("密钥已停用，网关一两秒内不再接受。", "The key is revoked; the gateway refuses it within seconds."),
}
READY_WITHIN = (VersionState.LISTED, VersionState.PRIVATE, VersionState.IN_REVIEW)


@dataclass(frozen=True)
class Endpoint:
    """One deployment as its row shows it; `may_roll_back` if the public name has an earlier version."""

    deployment: Deployment
    model: str
    replicas: int
    current: bool
    may_roll_back: bool


@blueprint.get("/endpoints")
def show_endpoints() -> str:
    return _show(_require_user(), Form())


@blueprint.get("/endpoints/usage.csv")
def send_usage() -> Response:
    """The month's usage by day, key and model, every row of it."""
    actor = _require_user()
    month = request.args.get("month") or month_key(context().clock())
    start, end = month_bounds(month)
    with context().sessions.read() as session:
        rows = list_usage_by_day(session, actor.organisation_id, start, end, most=None)
    name = f"usage-{month}.csv"
    headers = {"Content-Disposition": f"attachment; filename={name}"}
    return Response(write_usage_csv(rows), content_type="text/csv; charset=utf-8", headers=headers)


@blueprint.post("/endpoints/<any(deploy,undeploy):step>")
def change_deployment(step: str) -> Response | tuple[str, int]:
    actor, form = _require_user(), Form()
    act = service.deploy if step == "deploy" else service.undeploy
    with form.catching(), context().sessions.write() as session:
        act(session, actor, request.form.get("version_id", ""), now=context().clock())
    return redirect(f"/endpoints?done={step}ed") if form.ok else (_show(actor, form), 409)


@blueprint.post("/endpoints/roll-back")
def roll_back() -> Response | tuple[str, int]:
    actor, form = _require_user(), Form()
    with form.catching(), context().sessions.write() as session:
        service.roll_back(session, actor, request.form.get("public_name", ""), now=context().clock())
    return redirect("/endpoints?done=rolled_back") if form.ok else (_show(actor, form), 409)


@blueprint.route("/endpoints/keys/new", methods=["GET", "POST"])
def make_key() -> Response | tuple[str, int]:
    actor, form = _require_user(), Form.of_request()
    made = _create_key(actor, form) if request.method == "POST" else None
    if made is None:
        return render_template("endpoints/new_key.html", form=form), 200 if form.ok else 422
    row, text = made
    page = render_template("endpoints/key.html", key=row, text=text, base_url=context().settings.shown_gateway_url)
    response = make_response(page, 201)
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.post("/endpoints/keys/<key_id>/revoke")
def end_key(key_id: str) -> Response:
    actor = _require_user()
    with context().sessions.write() as session:
        revoke_key(session, actor, key_id, now=context().clock())
    return redirect("/endpoints?done=revoked#keys")


def _require_user() -> Actor:
    actor = current_actor()
    actor.require(*BUYERS, Role.OPERATOR, Role.PROVIDER)
    return actor


def _show(actor: Actor, form: Form) -> str:
    now = context().clock()
    month = request.args.get("month") or month_key(now)
    start, end = month_bounds(month)
    with context().sessions.read() as session:
        deployments = service.list_deployments(session, actor)
        return render_template(
            "endpoints/endpoints.html",
            form=form,
            endpoints=[_describe(session, row) for row in deployments],
            waiting=_list_waiting(session, actor, {row.version_id for row in deployments}),
            retirements=list_retirements(session, actor.organisation_id, now=now),
            keys=[(row, _state_of(row)) for row in list_keys(session, actor)],
            usage=list_usage_by_day(session, actor.organisation_id, start, end),
            month=month,
            month_before=month_key(start - timedelta(days=1)),
            month_after=month_key(end) if end <= now else "",
            notice=read_notice(NOTICES),
        )


def _create_key(actor: Actor, form: Form) -> tuple[ApiKey, str] | None:
    name = form.text("name", required=True)
    models = form.text("models", most=2_000).replace(",", " ").split()
    rpm, tpm, concurrency = (form.whole(field, most=10**9) for field in ("rpm", "tpm", "concurrency"))
    expires_at, budget_fen = form.day("expires_at"), form.yuan("budget_fen")
    cost_centre = form.optional("cost_centre", most=64)
    if not form.ok:
        return None
    secrets = context().secrets
    with form.catching(), context().sessions.write() as session:
        return create_key(
            session,
            actor,
            name=name,
            models=models,
            expires_at=expires_at,
            cost_centre=cost_centre,
            budget_fen=budget_fen,
            rpm=rpm,
            tpm=tpm,
            concurrency=concurrency,
            pepper=secrets["pepper"].encode(),
            pepper_id=secrets.fingerprint("pepper"),
            now=context().clock(),
        )
    return None


def _describe(session: Session, row: Deployment) -> Endpoint:
    public_name = row.public_name.rpartition("@")[0]
    alias = find_alias(session, public_name)
    current = alias is not None and alias.version_id == row.version_id
    before = alias.previous_version_id if alias is not None and current else None
    ready = before is not None and session.scalar(
        select(Deployment.id).where(Deployment.version_id == before, Deployment.state == DeploymentState.READY)
    )
    return Endpoint(row, public_name, _count_replicas(session, row), current, bool(ready))


def _count_replicas(session: Session, row: Deployment) -> int:
    adapter = session.get(ObservedAdapter, row.digest)
    if adapter is not None:
        return len(adapter.ready_on)
    ready = (ObservedReplica.set_id == row.set_id, ObservedReplica.state == ReplicaState.READY)
    return session.scalar(select(func.count()).select_from(ObservedReplica).where(*ready)) or 0


def _list_waiting(session: Session, actor: Actor, deployed: set[str]) -> list[tuple[Model, ModelVersion]]:
    """Return the organisation's own versions that could be deployed, newest first."""
    query = (
        select(Model, ModelVersion)
        .join(ModelVersion, ModelVersion.model_id == Model.id)
        .where(ModelVersion.organisation_id == actor.organisation_id, ModelVersion.state.in_(READY_WITHIN))
        .order_by(ModelVersion.id.desc())
        .limit(50)
    )
    return [(model, version) for model, version in session.execute(query) if version.id not in deployed]


def _state_of(row: ApiKey) -> str:
    if row.revoked_at is not None:
        return "revoked"
    return "expired" if row.expires_at is not None and row.expires_at <= context().clock() else "live"

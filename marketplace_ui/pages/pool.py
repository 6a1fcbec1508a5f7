"""The operator's page of the pool: what the controller reported, and how the engines of each base scale.

The auditor sees all of it and changes nothing. It leaves scaling and emptying machines to the pool controller.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from flask import Blueprint, redirect, render_template
from sqlalchemy import select
from werkzeug.wrappers import Response

from hub.actor import READERS, Actor, Role
from hub.catalogue.service import name_of
from hub.compute.tables import NodeState, Slot
from hub.deployments.maintenance import NOTICE_S, begin_maintenance, end_maintenance, list_machines
from hub.deployments.policies import DEFAULT_POLICY, LIMITS, Policy, list_policies, set_policy
from hub.deployments.tables import ObservedAdapter, ObservedReplica, PoolState
from hub.web import context, current_actor
from marketplace_ui.forms import Form
from marketplace_ui.gateway_load import read_load
from marketplace_ui.layout import read_notice

blueprint = Blueprint("pool", __name__)
NOTICES = {
    "policy": ("扩缩容设置已保存，正在运行的引擎会随之调整。", "Saved; running engines follow."),
    "maintenance": (
        "机器已开始排空：不再接收新引擎，适配器先迁到其他机器。",
        "The machine is being emptied: nothing new comes, its adapters move elsewhere first.",
    ),
    "service": ("机器已恢复服务。", "The machine takes engines again."),
}
DEFAULT_NOTICE_MIN = 10


@blueprint.get("/operator/pool")
def show_pool() -> str:
    return _show(current_actor(*READERS), None)


@blueprint.post("/operator/pool/policy")
def save_policy() -> Response | tuple[str, int]:
    actor, form = current_actor(Role.OPERATOR), Form.of_request()
    base = form.text("base", required=True, most=200)
    typed = {name: form.whole(name, least=least, most=most) for name, (least, most) in LIMITS.items()}
    for name in [name for name, value in typed.items() if value is None]:
        form.refuse(name, "请填写此项。", "Please fill this in.")
    with form.catching("base", *LIMITS):
        if form.ok:
            policy = Policy(**{name: value for name, value in typed.items() if value is not None})
            with context().sessions.write() as session:
                set_policy(session, actor, base, policy, now=context().clock())
    return redirect("/operator/pool?done=policy") if form.ok else (_show(actor, form), 422)


@blueprint.post("/operator/pool/maintenance")
def begin() -> Response | tuple[str, int]:
    actor, form = current_actor(Role.OPERATOR), Form.of_request()
    node_id = form.text("node", required=True, most=200)
    least, most = (seconds // 60 for seconds in NOTICE_S)
    minutes = form.whole("minutes", least=least, most=most)
    if minutes is None:
        form.refuse("minutes", "请填写此项。", "Please fill this in.")
    with form.catching("node"):
        if form.ok and minutes is not None:
            with context().sessions.write() as session:
                begin_maintenance(session, actor, node_id, notice_s=60 * minutes, now=context().clock())
    return redirect("/operator/pool?done=maintenance") if form.ok else (_show(actor, form), 422)


@blueprint.post("/operator/pool/maintenance/<node_id>/end")
def end(node_id: str) -> Response:
    actor = current_actor(Role.OPERATOR)
    with context().sessions.write() as session:
        end_maintenance(session, actor, node_id, now=context().clock())
    return redirect("/operator/pool?done=service")


def _show(actor: Actor, form: Form | None) -> str:
    load = read_load(context().settings)
    with context().sessions.read() as session:
        policies = [(base, name_of(session, base), policy) for base, policy in list_policies(session)]
        return render_template(
            "operator/pool.html",
            pools=session.scalars(select(PoolState)).all(),
            replicas=session.scalars(select(ObservedReplica).order_by(ObservedReplica.replica_id)).all(),
            adapters=session.scalars(select(ObservedAdapter).order_by(ObservedAdapter.digest)).all(),
            nodes=[(node, _ends_at(slots)) for node, slots in list_machines(session)],
            draining=NodeState.DRAINING,
            policies=policies,
            choices=[(base.id, name) for base, name, _ in policies],
            form=form or _prefill(policies),
            writes=actor.role is Role.OPERATOR,
            notice=read_notice(NOTICES),
            load=load,
            now=context().clock(),
        )


def _ends_at(slots: Sequence[Slot]) -> datetime | None:
    return max((slot.drain_by for slot in slots if slot.drain_by is not None), default=None)


def _prefill(policies: Sequence[tuple[object, str, Policy]]) -> Form:
    """The numbers that hold now for the only base, or the defaults."""
    policy = policies[0][2] if len(policies) == 1 else DEFAULT_POLICY
    numbers = {name: str(value) for name, value in asdict(policy).items()}
    return Form(numbers | {"minutes": str(DEFAULT_NOTICE_MIN)})

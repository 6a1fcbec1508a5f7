"""One data set: what its check found, kind by kind and row by row, columns and corrections, tokens, rights, deletion.

It leaves states and versions to `hub.datasets`; every correction makes a version and changes nothing that is there.
"""

from typing import Any

from flask import Blueprint, redirect, render_template, request
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from hub.actor import Actor
from hub.datasets import findings, service, versions
from hub.datasets.deletion import delete_dataset
from hub.datasets.previews import list_previews
from hub.datasets.removals import forget_removal
from hub.datasets.tables import DatasetState, DatasetVersion
from hub.tuning.dataset_api import open_preview, read_samples
from hub.tuning.dataset_readers import READERS
from hub.tuning.tables import Run
from hub.web import context, current_actor
from marketplace_ui import dataset_view as view
from marketplace_ui.forms import Form
from marketplace_ui.journey_words import explain_reason
from marketplace_ui.layout import read_notice
from marketplace_ui.pages.datasets import require_owner
from marketplace_ui.uploading import list_bases

blueprint = Blueprint("dataset", __name__, url_prefix="/datasets/<dataset_id>")
blueprint.add_app_template_global(explain_reason, "reason_of")
_PAGE_FINDINGS = 30
NOTICES = {
    "uploaded": ("已上传，正在逐行检查。", "Uploaded; it is being checked line by line."),
    "acknowledged": ("已确认提示，数据集可以使用。", "The warnings are acknowledged; the data set can be used."),
    "mapped": ("已按新的列用途生成新版本，正在检查。", "A new version with the columns you named is being checked."),
    "fixed": (
        "已按您的修正生成新版本，正在检查；原文件没有改动。",
        "A new version with your corrections is being checked; the upload itself is unchanged.",
    ),
    "validated": (
        "已生成以另一个数据集验证的版本，正在检查两边是否重叠。",
        "The version that validates on the other data set is made; the two are being checked against each other.",
    ),
    "registered": ("登记信息已保存。", "The registration is saved."),
    "previewed": ("正在用该基座分词，几秒后显示。", "The base's tokens are being made; they show in seconds."),
    "deleted": ("文件已删除，回执如下。", "The files are deleted; this is the receipt."),
}


@blueprint.get("")
def show_dataset(dataset_id: str) -> str:
    return _show(current_actor(), dataset_id, None)


@blueprint.post("/columns")
def map_columns(dataset_id: str) -> Response | tuple[str, int]:
    """Check the same upload again with columns that a person named, as the next version."""
    actor, form = require_owner(), Form.of_request()
    with context().sessions.read() as session:
        _, version = service.find_dataset(session, actor, dataset_id)
    mapping = view.read_mapping(form, view.list_columns(version), chat=view.is_chat(version))
    if mapping is not None:
        with form.catching(), context().sessions.write() as session:
            versions.correct_dataset(session, actor, dataset_id, mapping=mapping, fixes=None, now=context().clock())
    return redirect(f"/datasets/{dataset_id}?done=mapped") if form.ok else (_show(actor, dataset_id, form), 422)


@blueprint.post("/fix")
def fix_findings(dataset_id: str) -> Response | tuple[str, int]:
    """Correct all findings of one code, or everything as advised, as the next version."""
    actor, form = require_owner(), Form.of_request()
    with context().sessions.read() as session:
        version = versions.find_version(session, actor, dataset_id, _read_number("version"))
    code, action = form.value("code"), form.value("action")
    wishes = view.list_offered_fixes(version.report) if form.value("all") else {code: action}
    with form.catching(), context().sessions.write() as session:
        fixed = versions.correct_dataset(
            session,
            actor,
            dataset_id,
            mapping=None,
            fixes=wishes,
            now=context().clock(),
            number=_read_number("version"),
        )
        address = _address_of(fixed)
    return redirect(f"{address}done=fixed") if form.ok else (_show(actor, dataset_id, form), 422)


@blueprint.post("/validation")
def validate(dataset_id: str) -> Response | tuple[str, int]:
    """Hold another data set out whole, as a version of its own."""
    actor, form = require_owner(), Form.of_request()
    field = "validation_dataset_id"
    with form.catching(field), context().sessions.write() as session:
        held = versions.hold_out_file(session, actor, dataset_id, form.value(field), now=context().clock(), field=field)
        address = _address_of(held)
    return redirect(f"{address}done=validated") if form.ok else (_show(actor, dataset_id, form), 422)


@blueprint.post("/acknowledge")
def acknowledge(dataset_id: str) -> Response | tuple[str, int]:
    actor, form = require_owner(), Form()
    with form.catching(), context().sessions.write() as session:
        version = versions.find_version(session, actor, dataset_id, _read_number("version"))
        address = _address_of(service.acknowledge_version(session, actor, version, now=context().clock()))
    return redirect(f"{address}done=acknowledged") if form.ok else (_show(actor, dataset_id, form), 409)


@blueprint.post("/preview")
def preview(dataset_id: str) -> Response | tuple[str, int]:
    """Ask how a base reads the rows."""
    actor, form = require_owner(), Form.of_request()
    with form.catching(), context().sessions.write() as session:
        open_preview(session, actor, dataset_id, form.value("base"), None)
    if not form.ok:
        return _show(actor, dataset_id, form), 422
    return redirect(f"/datasets/{dataset_id}?done=previewed#tokens")


@blueprint.post("/registration")
def register(dataset_id: str) -> Response | tuple[str, int]:
    """Note the registration of the data set's rights."""
    actor, form = require_owner(), Form.of_request()
    rights = versions.Rights(
        form.text("number", required=True, most=80),
        form.optional("body", most=120),
        form.optional("licence", most=80),
        form.text("owner", required=True, most=120),
    )
    if form.ok:
        with form.catching(), context().sessions.write() as session:
            versions.register_rights(session, actor, dataset_id, rights, now=context().clock())
    return redirect(f"/datasets/{dataset_id}?done=registered") if form.ok else (_show(actor, dataset_id, form), 422)


@blueprint.post("/delete")
def delete(dataset_id: str) -> Response | tuple[str, int]:
    actor, form = require_owner(), Form()
    home, now = context().settings.home, context().clock()
    with form.catching(), context().sessions.write() as session:
        delete_dataset(session, actor, dataset_id, readers=READERS, home=home, now=now)
    if form.ok:
        forget_removal(home, dataset_id)
    return redirect(f"/datasets/{dataset_id}?done=deleted") if form.ok else (_show(actor, dataset_id, form), 409)


def _show(actor: Actor, dataset_id: str, form: Form | None) -> str:
    with context().sessions.read() as session:
        dataset, newest = service.find_dataset(session, actor, dataset_id)
        version = versions.find_version(session, actor, dataset_id, _read_number("version"))
        columns = view.list_columns(version)
        previews = list_previews(session, version)
        shown = {
            "dataset": dataset,
            "version": version,
            "newest": newest,
            "is_newest": version.id == newest.id,
            "is_current": version.id == newest.id or version.held_version_id is not None,
            "others": view.list_others(session, actor, newest),
            "versions": versions.list_versions(session, actor, dataset_id),
            "groups": view.group_issues(version.report),
            "offered": view.list_offered_fixes(version.report),
            "summary": (version.report or {}).get("summary", {}),
            "samples": view.read_samples(version),
            "columns": columns,
            "bases": list_bases(session, actor) if version.state in _TRAINABLE else [],
            "previews": [(one, read_samples(version, one)) for one in previews[:3]],
            "form": form or Form(view.fill_mapping(columns, version) | _fill_rights(dataset)),
            "asked": form is not None,
            "runs": _list_runs(session, actor, version),
            "notice": read_notice(NOTICES),
        }
        return render_template("datasets/dataset.html", **shown, **_read_findings(version))


_TRAINABLE = (DatasetState.READY, DatasetState.WARNED)
_CHECKED = (DatasetState.READY, DatasetState.WARNED, DatasetState.BLOCKED)


def _read_findings(version: DatasetVersion) -> dict[str, Any]:
    """One page of findings by row, as the address filters them."""
    if version.state not in _CHECKED:
        return {"page": None}
    known = {issue["code"] for issue in (version.report or {}).get("issues", []) if issue["sample_rows"]}
    code, severity = request.args.get("code", ""), request.args.get("severity", "")
    page = findings.read_findings(
        context().settings.home,
        version,
        code=code if code in known else None,
        severity=severity if severity in view.SEVERITIES else None,
        cursor=_read_number("cursor") or 0,
        limit=_PAGE_FINDINGS,
    )
    return {"page": page, "codes": sorted(known), "chosen": {"code": code, "severity": severity}}


def _address_of(version: DatasetVersion) -> str:
    """The page of a version; one that holds another data set out is never the newest and needs its number."""
    number = "" if version.held_version_id is None else f"version={version.number}&"
    return f"/datasets/{version.dataset_id}?{number}"


def _read_number(name: str) -> int | None:
    typed = request.args.get(name, "")
    return int(typed) if typed.isascii() and typed.isdecimal() and len(typed) <= 15 else None


def _fill_rights(dataset: Any) -> dict[str, str]:
    return {
        "number": dataset.registration_number or "",
        "body": dataset.registration_body or "",
        "licence": dataset.licence or "",
        "owner": dataset.rights_owner or "",
    }


def _list_runs(session: Session, actor: Actor, version: DatasetVersion) -> list[Run]:
    query = select(Run).where(Run.organisation_id == actor.organisation_id, Run.dataset_version_id == version.id)
    return list(session.scalars(query.order_by(Run.id.desc()).limit(20)))

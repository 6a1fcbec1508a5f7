"""One model's page: card, filing, lineage, versions and scores, price for my firm, how to call it, what to do next.

It leaves gathering to `hub.catalogue.page`, prices to `marketplace_ui.prices`, chatting to `tryout`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, render_template
from markupsafe import Markup
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.catalogue.page import ModelPage
from hub.catalogue.service import parse_public_name, read_page
from hub.catalogue.tables import ModelVersion, VersionState
from hub.deployments.service import find_open_deployment
from hub.deployments.tables import Deployment, DeploymentState
from hub.errors import NotFoundError
from hub.filings.service import explain_standing
from hub.tuning.papers import read_card
from hub.web import context, find_actor, request_language
from marketplace_ui.cards import read_titles
from marketplace_ui.forms import Form
from marketplace_ui.layout import BUYERS, read_notice, translate
from marketplace_ui.markdown import render_markdown
from marketplace_ui.prices import view_price

blueprint = Blueprint("model", __name__)
DEPLOYABLE = (VersionState.LISTED, VersionState.PRIVATE, VersionState.IN_REVIEW)
NOTICES = {
    "uploaded": (
        "上传通过全部检查，已提交审核；您现在就可以部署和调用。",
        "The upload passed every check and went to review; you may deploy and call it now.",
    ),
}


@dataclass(frozen=True)
class Score:
    """One model's exact answers on the held-out rows, with the interval, from 0 to 1."""

    title: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Pane:
    """One side of "try it": which model answers, what it is called here, and whether it can now."""

    name: str
    title: str
    ready: bool


@blueprint.get("/models/<organisation>/<name>")
def show_model(organisation: str, name: str) -> str:
    return render_model(f"{organisation}/{name}", Form(), {})


def render_model(public_name: str, form: Form, answers: Mapping[str, str]) -> str:
    """Return a model's page; `form` and `answers` carry a try-out that was sent without scripts.

    Raises:
        NotFoundError: nothing of that name for this person.
    """
    if parse_public_name(public_name) is None:
        raise NotFoundError.of("model", public_name[:120])
    actor, now = find_actor(), context().clock()
    with context().sessions.read() as session:
        page = read_page(session, actor, public_name, now)
        deployment = find_open_deployment(session, page.version.id)
        en, zh = explain_standing(page.standing)
        price = page.price
        return render_template(
            "model/model.html",
            page=page,
            titles=read_titles(session),
            card=render_markdown(page.model.card_markdown),
            papers=_render_papers(session, page.version),
            standing_text=zh if request_language() == "zh" else en,
            view=view_price(session, actor, price, filed=page.standing.valid, now=now) if price else None,
            scores=list_scores(page.version.metrics),
            panes=_list_panes(session, page),
            form=form,
            answers=answers,
            deployment=deployment,
            may=_list_permissions(actor, page, deployment),
            call_name=page.model.name,
            base_url=context().settings.shown_gateway_url,
            notice=read_notice(NOTICES),
        )


def _render_papers(session: Session, version: ModelVersion) -> Markup | None:
    """The card that was written from the manifest of the version's run."""
    text = read_card(session, version, context().settings.home, chinese=request_language() == "zh")
    return None if text is None else render_markdown(text)


def list_scores(metrics: Mapping[str, Any]) -> list[Score]:
    """Return base and adapter side by side, nothing where a version was not evaluated."""
    if not {"base", "adapter"} <= set(metrics):
        return []
    return [
        Score(key, part["exact_match"], part["exact_match_low"], part["exact_match_high"])
        for key in ("base", "adapter")
        if "exact_match" in (part := metrics[key])
    ]


def _list_panes(session: Session, page: ModelPage) -> list[Pane]:
    links = [page.lineage[0]] if len(page.lineage) == 1 else [page.lineage[-1], page.lineage[0]]
    return [Pane(link.name, title=_name_side(link.version), ready=_is_ready(session, link.version)) for link in links]


def _name_side(version: ModelVersion) -> str:
    return translate("基座", "Base") if version.base_version_id is None else translate("微调模型", "Tuned model")


def _is_ready(session: Session, version: ModelVersion) -> bool:
    found = find_open_deployment(session, version.id)
    return found is not None and found.state is DeploymentState.READY


def _list_permissions(actor: Actor | None, page: ModelPage, deployment: Deployment | None) -> dict[str, bool]:
    """Return which of the page's actions this person may take."""
    owner = actor is not None and (actor.role is Role.OPERATOR or actor.organisation_id == page.version.organisation_id)
    works = actor is not None and actor.role is not Role.AUDITOR
    in_use = page.version.state in DEPLOYABLE
    return {
        "tune": page.can_fine_tune and in_use and (actor is None or actor.role in BUYERS),
        "deploy": owner and works and in_use and deployment is None,
        "call": works and page.servability is not None and page.servability.ok,
        "price": owner and works and page.version.base_version_id is not None,
    }

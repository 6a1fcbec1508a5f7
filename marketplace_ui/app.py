"""Builds the whole web application: the hub's API wrapped with the pages.

It leaves the pages themselves to the modules of `marketplace_ui.pages`.
"""

import importlib
from typing import Any

from flask import Flask, Response, redirect, request
from jinja2 import StrictUndefined
from werkzeug.wrappers import Response as BaseResponse

from hub.app import create_api
from hub.errors import ForbiddenError
from hub.web import SESSION_COOKIE
from marketplace_ui.assets_manifest import read_manifest
from marketplace_ui.cards import summary_of, title_of
from marketplace_ui.errors import render_error
from marketplace_ui.format import FILTERS
from marketplace_ui.layout import address_with, describe_page, local_address, translate
from marketplace_ui.phone_table import label_cells
from marketplace_ui.words import say, tone_of

PAGES = (
    "front",
    "account",
    "catalogue",
    "model",
    "tryout",
    "endpoints",
    "offers",
    "rentals",
    "offer_form",
    "provider",
    "earnings",
    "integrator",
    "datasets",
    "dataset",
    "tuning",
    "runs",
    "vouchers",
    "grants",
    "programmes",
    "claims",
    "reports",
    "related",
    "statement",
    "filings",
    "operator",
    "pool",
    "meters",
    "rollouts",
    "settlement",
)
"""Modules of `marketplace_ui.pages`; each offers `blueprint`."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""Scripts and styles only from our own files."""


GLOBALS = {
    "t": translate,
    "say": say,
    "tone": tone_of,
    "address_with": address_with,
    "title_of": title_of,
    "summary_of": summary_of,
}
"""Functions that every template and macro may call."""


def create_app(**arguments: Any) -> Flask:
    """Return the application that gunicorn serves; `arguments` go to `hub.app.create_api`."""
    app = create_api(**arguments)
    app.template_folder = "../marketplace_ui/templates"
    app.static_folder = str(read_manifest().folder)
    app.jinja_env.filters.update(FILTERS, label_cells=label_cells)
    app.jinja_env.globals.update(GLOBALS)
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    for page in PAGES:
        app.register_blueprint(importlib.import_module(f"marketplace_ui.pages.{page}").blueprint, name=f"pages_{page}")
    app.context_processor(describe_page)
    app.before_request(_refuse_foreign_forms)
    app.after_request(_protect)
    app.register_error_handler(Exception, render_error)
    app.add_url_rule("/language/<code>", view_func=_switch_language)
    return app


def _refuse_foreign_forms() -> None:
    """Cross-site forms carry our cookie but not our origin. Source: Fetch metadata, W3C."""
    if request.method in ("GET", "HEAD", "OPTIONS") or SESSION_COOKIE not in request.cookies:
        return
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    same = site in ("same-origin", "none") if site else origin in (None, request.host_url.rstrip("/"))
    if not same:
        raise ForbiddenError(
            "This form came from another site; open the page here and send it again.",
            "表单来自其他网站，请在本站重新提交。",
        )


def _protect(response: Response) -> Response:
    response.headers.setdefault("Content-Security-Policy", POLICY)
    response.headers.setdefault("X-Frame-Options", "DENY")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    if request.path.startswith("/static/"):
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    elif SESSION_COOKIE in request.cookies:
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def _switch_language(code: str) -> BaseResponse:
    response = redirect(local_address(request.args.get("back", "/")))
    response.set_cookie("guanmo_language", code if code == "en" else "zh", max_age=31_536_000, samesite="Lax")
    return response

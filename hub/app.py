"""Builds the control-plane API: read it as the table of contents of the hub.

It leaves pages to `marketplace_ui.app`, which wraps what this returns.
"""

import importlib
import os

from flask import Response
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI

from hub.body_drain import BodyDrain
from hub.clock import Clock
from hub.database import Sessions, open_sessions
from hub.database_clock import choose_clock
from hub.description import DescribedApi
from hub.organisations.service import find_actor_by_token
from hub.request import StrictRequest
from hub.secrets import Secrets, read_secrets
from hub.settings import Settings, read_settings
from hub.tuning import dataset_api, openai_api, openai_files
from hub.web import Context, prepare_request, render_unexpected, render_validation, request_id
from registry.store import FolderStore

ROOMS = (
    "organisations",
    "ledger",
    "filings",
    "prices",
    "datasets",
    "compute",
    "catalogue",
    "vouchers",
    "metering",
    "orders",
    "payouts",
    "deployments",
    "tuning",
    "claims",
    "reports",
    "audit",
)
"""Rooms with an `api` module; each offers `blueprint`."""

MAX_BODY_BYTES = 512 * 1024 * 1024


def create_api(
    settings: Settings | None = None,
    *,
    secrets: Secrets | None = None,
    sessions: Sessions | None = None,
    clock: Clock | None = None,
) -> OpenAPI:
    """Return the Flask application with every room's API; arguments left out come from the environment."""
    settings = settings or read_settings(os.environ)
    sessions = sessions or open_sessions(settings.database_url)
    app = DescribedApi(
        "hub",
        info=Info(title="Guanmo hub", version="1"),
        doc_prefix="/api",
        validation_error_callback=render_validation,
    )
    app.request_class = StrictRequest
    app.wsgi_app = BodyDrain(app.wsgi_app)  # type: ignore[method-assign]  # Flask's documented way to wrap it
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["MAX_FORM_MEMORY_SIZE"] = 4 * 1024 * 1024
    app.extensions["guanmo"] = Context(
        settings=settings,
        secrets=secrets or read_secrets(settings.home),
        sessions=sessions,
        store=FolderStore(settings.artifacts),
        clock=clock or choose_clock(sessions),
        authenticate=find_actor_by_token,
    )
    for room in ROOMS:
        app.register_api(importlib.import_module(f"hub.{room}.api").blueprint)
    app.register_api(openai_files.blueprint)
    app.register_api(openai_api.blueprint)
    app.register_api(dataset_api.blueprint)
    app.register_error_handler(Exception, render_unexpected)
    app.before_request(prepare_request)
    app.after_request(_stamp)
    app.get("/healthz", doc_ui=False)(lambda: {"status": "ok"})
    return app


def _stamp(response: Response) -> Response:
    response.headers["x-request-id"] = request_id()
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    return response

"""The web application for each test without building it anew: its 230 routes are compiled once, which takes 0.25 s."""

import copy
from collections.abc import Callable
from typing import TypeVar

from flask import Flask

from hub.body_drain import BodyDrain
from hub.clock import Clock
from hub.database import Sessions
from hub.secrets import Secrets
from hub.settings import Settings
from hub.web import Context
from registry.store import FolderStore

App = TypeVar("App", bound=Flask)
_BUILT: dict[Callable[..., Flask], Flask] = {}


def copy_app(
    build: Callable[..., App], settings: Settings, *, secrets: Secrets, sessions: Sessions, clock: Clock
) -> App:
    """Return what `build` (`create_api` or `create_app`) returns: routes and templates shared, the context its own.

    Who adds routes or hooks to an application, or leaves rooms out, builds it instead.
    """
    if build not in _BUILT:
        _BUILT[build] = build(settings=settings, secrets=secrets, sessions=sessions, clock=clock)
    built: App = _BUILT[build]  # type: ignore[assignment]  # what `build` returned
    app, found = copy.copy(built), built.extensions["guanmo"]
    context = Context(settings, secrets, sessions, FolderStore(settings.artifacts), clock, found.authenticate)
    remembered = {name: type(state)() for name, state in built.extensions.items() if name != "guanmo"}
    app.config, app.extensions = copy.copy(built.config), {**remembered, "guanmo": context}
    app.wsgi_app = BodyDrain(type(app).wsgi_app.__get__(app))  # type: ignore[method-assign]
    return app

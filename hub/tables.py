"""Imports every room's tables so that the metadata is whole: for migrations, tests and whole-database checks."""

import importlib
import importlib.util
import pkgutil

import hub
from hub.database import Base

metadata = Base.metadata


def import_tables() -> list[str]:
    """Import each `hub.<room>.tables` there is and return the rooms' names."""
    rooms = [item.name for item in pkgutil.iter_modules(hub.__path__) if item.ispkg]
    return [room for room in sorted(rooms) if _import(f"hub.{room}.tables")]


def _import(name: str) -> bool:
    if importlib.util.find_spec(name) is None:
        return False
    importlib.import_module(name)
    return True

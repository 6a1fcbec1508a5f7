"""Finds the built scripts and styles by their plain names. It leaves building them to `assets/build.mjs`."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hub.errors import GuanmoError

FOLDER = Path(__file__).parent / "static" / "dist"


class AssetsMissingError(GuanmoError):
    """The pages were not built."""

    code = "assets_missing"
    status = 500


@dataclass(frozen=True)
class Manifest:
    """Where the built files are, and their hashed names by plain name."""

    folder: Path
    names: dict[str, str]


def read_manifest() -> Manifest:
    """Return the manifest, read again whenever it was built again.

    Raises:
        AssetsMissingError: names the command that builds.
    """
    path = FOLDER / "manifest.json"
    try:
        return _read(path, path.stat().st_mtime_ns)
    except FileNotFoundError as error:
        raise AssetsMissingError(
            "The pages are not built; run 'make setup'.", "页面资源尚未构建，请运行 make setup。"
        ) from error


@lru_cache(maxsize=1)
def _read(path: Path, _built_ns: int) -> Manifest:
    return Manifest(path.parent, json.loads(path.read_text()))

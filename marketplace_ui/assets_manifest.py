"""Finds the built scripts and styles by their plain names. It leaves building them to `assets/build.mjs`."""

import json
from dataclasses import dataclass
from functools import cache
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


@cache
def read_manifest() -> Manifest:
    """Return the manifest.

    Raises:
        AssetsMissingError: names the command that builds.
    """
    path = FOLDER / "manifest.json"
    if not path.is_file():
        raise AssetsMissingError("The pages are not built; run 'make setup'.", "页面资源尚未构建，请运行 make setup。")
    return Manifest(FOLDER, json.loads(path.read_text()))

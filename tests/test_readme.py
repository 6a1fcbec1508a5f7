"""The README keeps its word: steps, commands, settings, files and pictures that it names exist, in both languages."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import typer.main

from hub.cli.main import app
from hub.settings import KNOWN
from tests.architecture import ROOT

READMES = ("README.md", "README.zh.md")
PAGES = (*READMES, "CHANGELOG.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")))
STEP = re.compile(r"^\d+\. `([\w/]+\.py):(\w+)`", re.MULTILINE)
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)\)")
FILE = re.compile(r"^[\w.-]+(?:/[\w.-]+)+\.(?:py|json|md|html|css|js|mjs|lock|in)$")
MODULE = re.compile(r"python[\d.]* -m ([\w.]+)")
OUTSIDE = ("http://", "https://")
MARKERS = ("journey", "figures")


@pytest.mark.parametrize("name", READMES)
def test_each_step_of_the_walks_names_a_function_that_exists(name: str) -> None:
    steps = STEP.findall(read(name))
    assert len(steps) > 25
    missing = [f"{path}:{function}" for path, function in steps if function not in list_defined(path)]
    assert missing == []


def test_both_languages_walk_the_same_steps() -> None:
    first, second = (STEP.findall(read(name)) for name in READMES)
    assert first == second
    assert len(set(first)) == len(first)


@pytest.mark.parametrize("name", READMES)
def test_walks_have_eight_to_fourteen_steps(name: str) -> None:
    walks = [STEP.findall(part) for part in re.split(r"^#", read(name), flags=re.MULTILINE)]
    assert [8 <= len(walk) <= 14 for walk in walks if walk] == [True, True, True]


@pytest.mark.parametrize("name", PAGES)
def test_named_make_targets_exist(name: str) -> None:
    assert find_words(name, "make") <= list_targets()


@pytest.mark.parametrize("name", PAGES)
def test_named_guanmo_commands_exist(name: str) -> None:
    assert find_words(name, "guanmo") <= list_commands()


def test_the_readme_names_targets_and_commands() -> None:
    assert {"demo", "test", "help"} <= find_words("README.md", "make")
    assert {"status", "logs", "down", "reset", "models"} <= find_words("README.md", "guanmo")
    assert "models import" in list_commands()
    for name in READMES:
        assert find_words(name, "make") == find_words("README.md", "make")
        assert find_words(name, "guanmo") == find_words("README.md", "guanmo")


@pytest.mark.parametrize("name", READMES)
def test_every_setting_is_explained(name: str) -> None:
    explained = set(re.findall(r"^\| `(GUANMO_\w+)` \|", read(name), re.MULTILINE))
    assert explained == KNOWN


@pytest.mark.parametrize("name", PAGES)
def test_named_files_and_modules_exist(name: str) -> None:
    files = [word for code in list_code(name) for word in code.split() if FILE.match(word)]
    modules = [module for code in list_code(name) for module in MODULE.findall(code)]
    missing = [file for file in files if not (ROOT / file).exists() and not file.startswith("var/")]
    missing += [module for module in modules if not is_module(module)]
    assert missing == []


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    folder = (ROOT / name).parent
    links = [link for link in LINK.findall(read(name)) if not link.startswith(OUTSIDE) and not link.endswith(".png")]
    assert [link for link in links if not (folder / link).exists()] == []


def test_both_languages_show_the_same_pictures_and_they_exist() -> None:
    first, second = ([link for link in LINK.findall(read(name)) if link.endswith(".png")] for name in READMES)
    assert first == second
    assert len(first) >= 12
    assert [picture for picture in first if not (ROOT / picture).is_file()] == []


@pytest.mark.parametrize("name", READMES)
def test_places_for_measured_text_are_there_once(name: str) -> None:
    text = read(name)
    for marker in MARKERS:
        assert len(re.findall(rf"<!-- {marker}:begin -->.*?<!-- {marker}:end -->", text, re.DOTALL)) == 1


def test_decisions_are_numbered_without_a_gap_and_dated() -> None:
    found = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [int(path.name[:4]) for path in found] == list(range(1, len(found) + 1))
    assert len(found) >= 10
    for path in found:
        title, _, rest = path.read_text().partition("\n")
        assert title.startswith(f"# {int(path.name[:4])}. "), path
        assert re.match(r"\n\d{4}-\d{2}-\d{2}\n", rest), path


def read(name: str) -> str:
    """Return a page's text."""
    return (ROOT / name).read_text()


def list_code(name: str) -> list[str]:
    """Return the code of a page: fenced blocks and spans."""
    return [code.strip("`") for code in CODE.findall(read(name))]


def find_words(name: str, program: str) -> set[str]:
    """Return the first words after a program's name wherever a page's code calls it."""
    call = re.compile(rf"(?:^|[\s/]){program} ([a-z][a-z-]*)", re.MULTILINE)
    return {word for code in list_code(name) for word in call.findall(code)}


@cache
def list_defined(path: str) -> frozenset[str]:
    """Return the functions and methods that a file defines; none for a file that is not there."""
    file: Path = ROOT / path
    if not file.is_file():
        return frozenset()
    nodes = ast.walk(ast.parse(file.read_text(), path))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def list_targets() -> set[str]:
    """Return the targets of the Makefile."""
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def list_commands() -> set[str]:
    """Return the commands of `guanmo`, those of a group with the group's name before."""
    commands = set()
    for name, command in typer.main.get_group(app).commands.items():
        commands |= {name} | {f"{name} {inner}" for inner in getattr(command, "commands", {})}
    return commands


def is_module(module: str) -> bool:
    """Say whether a dotted name is a module or a package to run of this repository."""
    path = ROOT.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()

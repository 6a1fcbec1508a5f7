"""The house keeps its shape: imports one way, files and functions small, names that say something."""

import ast
import importlib.metadata
import re
import statistics

import pytest

from tests.architecture import PACKAGES, ROOT, list_functions, list_imports, list_sources, name_of, parse

ALLOWED = {
    "registry": ("registry",),
    "serving": ("serving",),
    "finetune": ("finetune", "serving.launch.forks"),
    "hub": ("hub", "registry", "serving.contract", "serving.launch", "finetune.spec"),
    "marketplace_ui": ("marketplace_ui", "hub", "registry", "serving.contract", "serving.launch", "finetune.spec"),
}
ROWS = (
    {"events"},
    {"jobs", "organisations", "ledger"},
    {"filings", "prices", "datasets", "compute"},
    {"catalogue"},
    {"vouchers", "metering", "payouts"},
    {"orders"},
    {"deployments"},
    {"tuning"},
    {"claims"},
    {"reports"},
    {"audit"},
)
MONEY_ROOMS = ("ledger", "prices", "vouchers", "orders", "metering", "payouts", "claims")
STANDARD_ONLY = (
    "serving/contract",
    "serving/launch",
    "finetune/spec.py",
    "finetune/codec.py",
    "finetune/recipe_bounds.py",
)
VAGUE = re.compile(r"^(utils?|helpers?|common|misc|manager|processor|data|info)$")
MAXIMUM_FILE_LINES = 500
MAXIMUM_FUNCTION_LINES = 70


def test_enough_sources_are_seen() -> None:
    assert len(list_sources()) > 100


def test_imports_point_one_way() -> None:
    wrong = [
        f"{name_of(path)} imports {target}"
        for path in list_sources()
        for target in list_imports(path)
        if target.split(".")[0] in PACKAGES and not _may_import(name_of(path).split(".")[0], target)
    ]
    assert wrong == []


def test_rooms_import_only_rows_above() -> None:
    level = {room: row for row, rooms in enumerate(ROWS) for room in rooms}
    wrong = []
    for path in list_sources("hub"):
        room = name_of(path).split(".")[1] if "." in name_of(path) else ""
        for target in list_imports(path):
            parts = target.split(".")
            other = parts[1] if parts[0] == "hub" and len(parts) > 1 else ""
            if room in level and other in level and other != room and level[other] >= level[room]:
                wrong.append(f"{name_of(path)} imports {target}")
    assert wrong == []


def test_hub_never_imports_mlflow_and_only_one_file_does() -> None:
    importing = [path.relative_to(ROOT).as_posix() for path in list_sources() if _imports_package(path, "mlflow")]
    assert importing == ["registry/mlflow_mirror.py"]


def test_only_the_warm_trainer_looks_out_of_its_package() -> None:
    """What is shut in may read its own package alone, and a trainer works without the rest of the house."""
    importing = [
        name_of(path)
        for path in list_sources("finetune")
        if any(target.split(".")[0] in set(PACKAGES) - {"finetune"} for target in list_imports(path))
    ]
    assert importing == ["finetune.warm"]


def test_contracts_need_only_the_standard_library() -> None:
    import sys

    files = [path for place in STANDARD_ONLY for path in _expand(place)]
    assert len(files) > 3
    own = {"serving", "finetune"}
    for path in files:
        roots = {target.split(".")[0] for target in list_imports(path)}
        assert roots <= set(sys.stdlib_module_names) | own, path


def test_no_dependency_shadows_our_names() -> None:
    owners = importlib.metadata.packages_distributions()
    for package in PACKAGES:
        assert set(owners.get(package, ["guanmo"])) <= {"guanmo"}, package


def test_files_and_functions_stay_small() -> None:
    long_files = [
        str(path.relative_to(ROOT))
        for path in list_sources()
        if len(path.read_text().splitlines()) > MAXIMUM_FILE_LINES
    ]
    functions = [item for path in list_sources() for item in list_functions(path)]
    assert long_files == []
    assert [place for place, lines in functions if lines > MAXIMUM_FUNCTION_LINES] == []
    assert statistics.median(lines for _, lines in functions) <= 15


def test_names_say_something() -> None:
    vague = [name_of(path) for path in list_sources() if VAGUE.match(path.stem) or VAGUE.match(path.parent.name)]
    assert vague == []


def test_every_module_says_what_it_is_for() -> None:
    assert [name_of(path) for path in list_sources() if not ast.get_docstring(parse(path))] == []


def test_no_float_in_money_rooms() -> None:
    """Money is integer fen: no float literal, no float() call in the rooms that count it."""
    rooms = [
        path for room in ("ledger", "prices", "vouchers", "orders", "metering") for path in list_sources(f"hub/{room}")
    ]
    assert len(rooms) > 10
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}" for path in rooms for node in ast.walk(parse(path)) if _is_float(node)
    ]
    assert wrong == []


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_reads_no_environment(package: str) -> None:
    """No module reads os.environ at its top level."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in list_sources(package)
        for node in parse(path).body
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.If)
        and any(isinstance(part, ast.Attribute) and part.attr in ("environ", "getenv") for part in ast.walk(node))
    ]
    assert wrong == []


def _may_import(package: str, target: str) -> bool:
    return any(target == allowed or target.startswith(f"{allowed}.") for allowed in ALLOWED[package])


def _imports_package(path: object, package: str) -> bool:
    return any(target.split(".")[0] == package for target in list_imports(path))  # type: ignore[arg-type]


def _expand(place: str) -> list:  # type: ignore[type-arg]
    path = ROOT / place
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _is_float(node: ast.AST) -> bool:
    literal = isinstance(node, ast.Constant) and isinstance(node.value, float)
    return literal or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float")

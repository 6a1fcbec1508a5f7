"""mlflow stays in one file, and the registry is light: importing it loads neither mlflow nor torch."""

import subprocess
import sys

from tests.architecture import list_imports, list_sources


def test_only_the_mirror_imports_mlflow() -> None:
    sources = list_sources()
    assert len(sources) > 20
    users = {path.name for path in sources if any(name.split(".")[0] == "mlflow" for name in list_imports(path))}
    assert users == {"mlflow_mirror.py"}


def test_importing_the_registry_loads_no_engine() -> None:
    modules = [f"registry.{path.stem}" for path in list_sources("registry") if path.stem != "__init__"]
    assert len(modules) > 15
    code = f"import sys, {', '.join(modules)}; print(sorted({{'mlflow', 'torch', 'peft'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

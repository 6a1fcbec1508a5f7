"""The mirror against a real MLflow server: runs, versions, repetition, and that the server is shut to others."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path

import pytest

from registry.lineage import Lineage
from registry.mirror_records import (
    MetricPoint,
    MirroredRun,
    MirrorNameRefusedError,
    check_registered_name,
    registered_name,
)
from registry.mlflow_mirror import Mirror, MirrorUnavailableError
from registry.mlflow_server import USERNAME, prepare_server, server_argv, server_env

PASSWORD = "a password of the test"
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LINEAGE = Lineage(base_weights_digest="a" * 64, artifact_digest="b" * 64, recipe_digest="c" * 64)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A hardened server on a free port; its address."""
    home = tmp_path_factory.mktemp("home")
    password_file = home / "mlflow.password"
    password_file.write_text(PASSWORD)
    prepare_server(home, password_file=password_file)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    env = server_env(home, password_file=password_file, inherited=os.environ)
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(server_argv(home, port), env=env, stdout=log, stderr=log, cwd=home)
        try:
            _wait_until_ready(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture
def mirror(server: str, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """A mirror with the right password; the environment is put back afterwards."""
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(name, "")
    return Mirror(server, USERNAME, PASSWORD)


@pytest.mark.engine
def test_run_and_version_are_recorded_once(mirror: Mirror, adapter: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.mkdir()
    (report / "metrics.json").write_text("{}")
    points = [MetricPoint("loss", step, 3.0 - step / 1000, AT + timedelta(seconds=step)) for step in range(1500)]

    def record_run() -> MirroredRun:
        return mirror.record_run(
            "acme",
            "run one",
            params={"r": "4", "long": "x" * 7000},
            metrics=points,
            tags={"guanmo.run_id": "run_1", "guanmo.base": "a" * 64},
            artifact_dir=report,
        )

    run = mirror.record_run("acme", "other", params={}, metrics=[], tags={"guanmo.run_id": "run_0"})
    assert record_run() == record_run() != run
    name = registered_name("acme", "bearing-faults")
    tags = {"guanmo.version_id": "ver_1", **LINEAGE.as_tags()}
    first = mirror.record_version(name, adapter, source_run=run, tags=tags, alias="champion")
    assert mirror.record_version(name, adapter, source_run=run, tags=tags, alias="champion") == first
    assert first.version == 1
    client = _client(mirror)
    history = client.get_metric_history(record_run().run_id, "loss")
    assert (len(history), history[0].value, history[0].timestamp) == (1500, 3.0, round(AT.timestamp() * 1000))
    assert len(client.search_runs([run.experiment_id])) == 2
    assert [item.path for item in client.list_artifacts(record_run().run_id)] == ["metrics.json"]
    stored = client.get_model_version_by_alias(name, "champion")
    assert stored.source == f"models:/{first.model_id}"
    assert stored.tags["guanmo.lineage_digest"] == LINEAGE.digest()
    files = {item.path for item in client.list_logged_model_artifacts(first.model_id)}
    assert files == {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.engine
def test_late_repetition_does_not_move_the_alias_back(mirror: Mirror, adapter: Path) -> None:
    run = mirror.record_run("acme", "r", params={}, metrics=[], tags={"guanmo.run_id": "run_2"})
    name = registered_name("acme", "welds")
    versions = [
        mirror.record_version(name, adapter, source_run=run, tags={"guanmo.version_id": key}, alias="champion").version
        for key in ("ver_a", "ver_b", "ver_a")
    ]
    assert versions == [1, 2, 1]
    assert _client(mirror).get_model_version_by_alias(name, "champion").version == "2"
    mirror.set_alias(name, "champion", 1)
    assert _client(mirror).get_model_version_by_alias(name, "champion").version == "1"
    found = mirror.find_version(name, "ver_b")
    assert found is not None
    assert found.version == 2
    assert mirror.find_version(name, "ver_'x") is None


@pytest.mark.engine
def test_server_refuses_strangers_and_foreign_sources(server: str, mirror: Mirror, adapter: Path) -> None:
    port, search = int(server.rsplit(":", 1)[1]), "/api/2.0/mlflow/experiments/search?max_results=1"
    closed = ("/ajax-api/3.0/mlflow/assistant/config", "/ajax-api/3.0/jobs/1", "/graphql", "/gateway/x", "/api/2.0/mcp")
    artifacts = "/api/2.0/mlflow-artifacts/artifacts?path="
    assert {path: _status(port, path) for path in (search, artifacts, *closed)} == dict.fromkeys(
        (search, artifacts, *closed), 401
    )
    assert _status(port, search, host="evil.example") == 403
    run = mirror.record_run("acme", "r", params={}, metrics=[], tags={"guanmo.run_id": "run_3"})
    mirror.record_version("acme.pumps", adapter, source_run=run, tags={"guanmo.version_id": "ver_p"})
    from mlflow.exceptions import MlflowException

    for source in ("file:///etc", "/etc", "models:/m-1/../..", "http://127.0.0.1/x", "models:/acme.pumps/1"):
        with pytest.raises(MlflowException, match="Invalid model version source"):
            _client(mirror).create_model_version("acme.pumps", source, run.run_id)


@pytest.mark.engine
def test_wrong_password_and_dead_server_are_coded_errors(server: str, mirror: Mirror) -> None:
    with pytest.raises(MirrorUnavailableError, match="repeat"):
        Mirror(server, USERNAME, "wrong password here").find_version("acme.x", "ver_1")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        dead = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(MirrorUnavailableError, match=dead):
        Mirror(dead, USERNAME, PASSWORD).find_version("acme.x", "ver_1")


@pytest.mark.parametrize("name", ["acme/x", "acme:x", "acme", ".x", "a.", "a b.c", "a.b'", "a." + "b" * 200, "模型.x"])
def test_names_that_mlflow_cannot_hold_are_refused(name: str) -> None:
    with pytest.raises(MirrorNameRefusedError):
        check_registered_name(name)


def _client(mirror: Mirror):  # type: ignore[no-untyped-def]
    from mlflow import MlflowClient

    return MlflowClient(mirror.tracking_uri, mirror.tracking_uri)


def _wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended; see server.log"
        try:
            if _status(port, "/health") == 200:
                return
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise AssertionError("the server was not ready within 120 s")


def _status(port: int, path: str, host: str = "127.0.0.1") -> int:
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path, headers={"Host": f"{host}:{port}"})
        return connection.getresponse().status

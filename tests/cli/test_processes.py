"""The list of processes and the configuration written for them; keeping them alive is tested in test_supervision."""

import configparser
import importlib.util
import itertools
import os
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from supervisor.datatypes import dict_of_key_value_pairs

from hub.cli.processes import Process, list_processes, write_configuration
from hub.secrets import make_secrets
from hub.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    home = tmp_path / "my home"
    make_secrets(home)
    return Settings(home=home, database_url=f"sqlite:///{home / 'hub.sqlite3'}")


EVERYWHERE = "0.0.0.0"  # noqa: S104  compared, not bound


def test_each_process_starts_a_module_that_exists(settings: Settings) -> None:
    processes = list_processes(settings)
    assert [process.name for process in processes] == ["mlflow", "hub", "pool", "gateway", "worker", "trainer"]
    for process in processes:
        flag = process.argv.index("-m")
        assert importlib.util.find_spec(process.argv[flag + 1]) is not None, process.argv
        assert Path(process.argv[0]).is_file()


def test_everything_listens_on_loopback_unless_told_otherwise(settings: Settings) -> None:
    for process in list_processes(settings):
        assert process.host == "127.0.0.1"
        assert EVERYWHERE not in " ".join(process.argv)
    opened = [process for process in list_processes(replace(settings, bind=EVERYWHERE)) if process.host == EVERYWHERE]
    assert [process.name for process in opened] == ["hub", "gateway"]
    assert all(process.health_url.startswith("http://127.0.0.1:") for process in opened)


def test_every_port_is_the_setting_of_its_process(settings: Settings) -> None:
    changed = replace(settings, hub_port=1001, gateway_port=1002, pool_port=1003, mlflow_port=1004)
    ports = {process.name: process.port for process in list_processes(changed)}
    assert ports == {"mlflow": 1004, "hub": 1001, "pool": 1003, "gateway": 1002, "worker": None, "trainer": None}
    for process in list_processes(changed):
        assert process.port is None or str(process.port) in " ".join(process.argv)


def test_configuration_keeps_argv_and_environment_whole(settings: Settings) -> None:
    odd = Process(
        "odd", ["/bin/echo", "two words", 'a "quoted" part', "50%", "it's; so"], "", None, {"ODD": r"\A1,[2] %3\Z"}
    )
    processes = [*list_processes(settings), odd]
    found = read(write_configuration(settings, processes))
    for process in processes:
        section = found[f"program:{process.name}"]
        assert shlex.split(section["command"].replace("%%", "%")) == process.argv
        assert section["stdout_logfile"] == f"{settings.home}/logs/{process.name}.log"
    for process in processes:
        # supervisord's own parser: it once handed MLflow a pattern with doubled backslashes.
        text = found[f"program:{process.name}"]["environment"].replace("%%", "%")
        environment = dict_of_key_value_pairs(text)
        assert process.environment.items() <= environment.items(), process.name
        assert environment["GUANMO_HOME"] == str(settings.home)


def test_processes_start_in_order_and_stop_in_reverse(settings: Settings) -> None:
    found = read(write_configuration(settings, list_processes(settings)))
    order = [int(found[f"program:{process.name}"]["priority"]) for process in list_processes(settings)]
    assert order == sorted(order)
    assert len(set(order)) == len(order)


def test_engines_get_time_to_drain(settings: Settings) -> None:
    found = read(write_configuration(settings, list_processes(settings)))
    assert int(found["program:pool"]["stopwaitsecs"]) > int(found["program:gateway"]["stopwaitsecs"])


def test_one_gateway_process_a_core_with_its_door_on_loopback(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318/v1/traces")
    argv = next(process.argv for process in list_processes(settings) if process.name == "gateway")
    options = dict(itertools.pairwise(argv))
    assert int(options["--processes"]) == len(os.sched_getaffinity(0))
    assert options["--admin"] == f"127.0.0.1:{settings.gateway_port + 1}"
    assert options["--otlp-endpoint"] == "http://127.0.0.1:4318/v1/traces"


def test_configuration_is_private_and_names_no_other_secret(settings: Settings) -> None:
    path = write_configuration(settings, list_processes(settings))
    assert path.stat().st_mode & 0o077 == 0
    for name in ("pepper", "session_key", "pool.token", "gateway.token", "worker.token"):
        assert (settings.home / "secrets" / name).read_text() not in path.read_text(), name


def read(path: Path) -> configparser.RawConfigParser:
    """Parse it as supervisord does: a sign after a blank would begin a comment."""
    parser = configparser.RawConfigParser()
    parser.read_string(path.read_text())
    return parser

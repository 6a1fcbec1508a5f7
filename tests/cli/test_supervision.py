"""Supervision on a real supervisord with two stand-ins: starts, comes back, refuses, and leaves nothing running."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from click.testing import Result
from typer.testing import CliRunner

from hub.cli import supervision
from hub.cli.main import app
from hub.cli.supervision import StartError, is_up, read_conditions, start_all, stop_all, wait_until_well
from serving.launch import LaunchSpec, LocalLaunch
from tests.cli.conftest import STAND_IN, Site, find_free_port

DRIVER = Path(__file__).parent / "keep_up.py"


@pytest.fixture(scope="module")
def running(shared_site: Site) -> Iterator[Site]:
    """Both stand-ins, well."""
    start_well(shared_site)
    yield shared_site
    stop_all(shared_site.settings)


def test_every_process_is_told_as_it_becomes_well(running: Site) -> None:
    conditions = read_conditions(running.settings, running.processes)
    assert [(item.name, item.state, item.healthy) for item in conditions] == [
        ("hub", "RUNNING", True),
        ("worker", "RUNNING", True),
    ]
    assert {item.pid for item in conditions} <= set(running.list_alive())


def test_status_and_logs_show_what_runs(running: Site) -> None:
    shown = call_guanmo(running, "status")
    assert shown.exit_code == 0, shown.output
    assert "hub" in shown.output
    assert "RUNNING" in shown.output
    assert call_guanmo(running, "logs", "hub", "-n", "1").output == "hub began\n"
    assert "worker" in call_guanmo(running, "logs").output.splitlines()
    refused = call_guanmo(running, "logs", "../run/supervisord")
    assert refused.exit_code == 1
    assert "there are: hub" in str(refused.exception)


def test_killed_process_comes_back(running: Site) -> None:
    before = read_conditions(running.settings, running.processes)[0].pid
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: (now := read_conditions(running.settings, running.processes)[0]).pid != before and now.healthy)


def test_second_start_is_refused_and_disturbs_nothing(running: Site) -> None:
    pids = [item.pid for item in read_conditions(running.settings, running.processes)]
    with pytest.raises(StartError, match="already running; use 'guanmo status' or 'guanmo down'"):
        start_all(running.settings, running.processes)
    assert call_guanmo(running, "up").exit_code == 1
    assert [item.pid for item in read_conditions(running.settings, running.processes)] == pids


def test_reset_is_refused_while_running(running: Site) -> None:
    refused = call_guanmo(running, "reset", "--yes")
    assert refused.exit_code == 1
    assert "guanmo down" in str(refused.exception)
    assert (running.home / "secrets" / "pepper").is_file()


def test_configuration_with_the_password_is_private(running: Site) -> None:
    assert (running.home / "run" / "supervisord.conf").stat().st_mode & 0o077 == 0
    assert (running.home / "run" / "supervisor.sock").stat().st_mode & 0o077 == 0


def test_process_that_never_answers_is_named_with_its_log(running: Site) -> None:
    deaf = [replace(running.processes[1], health_url=f"http://127.0.0.1:{find_free_port()}/healthz")]
    with pytest.raises(StartError, match="Worker did not answer within 0 s; read 'guanmo logs'"):
        wait_until_well(running.settings, timeout_s=0.1, tell=lambda *_: None, processes=deaf)


def test_stop_leaves_nothing_not_even_what_was_launched(site: Site) -> None:
    start_well(site)
    launch = LocalLaunch(site.home / "run" / "trainers")
    spec = LaunchSpec(
        name="run-1",
        argv=(sys.executable, "-S", str(STAND_IN), "trainer", str(site.home)),
        env={},
        cwd=site.home,
        log_path=site.home / "logs" / "trainer.log",
    )
    trainer = launch.start(spec)
    # Three stand-ins, each with a child.
    wait_for(lambda: len(site.list_pids()) >= 6)
    assert len(site.list_alive()) >= 6
    assert stop_all(site.settings) >= 3
    assert site.list_alive() == []
    assert not is_up(site.settings)
    assert not psutil.pid_exists(trainer.pid)
    assert read_conditions(site.settings, site.processes) == []
    assert call_guanmo(site, "status").exit_code == 1
    assert stop_all(site.settings) == 0


def test_supervisord_that_answers_nobody_is_ended_too(site: Site) -> None:
    start_well(site)
    pid = int((site.home / "run" / "supervisord.pid").read_text())
    (site.home / "run" / "supervisor.sock").unlink()
    assert not is_up(site.settings)
    stop_all(site.settings)
    assert not psutil.pid_exists(pid)
    assert site.list_alive() == []


def test_taken_port_is_refused_with_its_name_and_variable(site: Site) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", site.settings.hub_port))
        holder.listen()
        with pytest.raises(StartError) as refusal:
            start_all(site.settings, site.processes)
    assert f"Port {site.settings.hub_port} for hub is taken" in refusal.value.en
    assert "GUANMO_HUB_PORT" in refusal.value.en
    assert not is_up(site.settings)


def test_path_too_long_for_a_socket_is_refused(site: Site) -> None:
    settings = replace(site.settings, home=site.home / ("x" * 90))
    settings.home.mkdir()
    with pytest.raises(StartError, match="longer than a socket may be; set GUANMO_HOME to a shorter path"):
        start_all(settings, site.processes)


@pytest.mark.parametrize("sign", [";", "#", "%", "?", '"'])
def test_path_that_the_configuration_cannot_hold_is_refused(site: Site, sign: str) -> None:
    settings = replace(site.settings, home=site.home / f"a {sign}b")
    settings.home.mkdir()
    with pytest.raises(StartError, match="set GUANMO_HOME to a plain path"):
        start_all(settings, site.processes)


def test_full_disk_is_said_plainly(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(site.home)._replace(free=999_999_999)
    monkeypatch.setattr(supervision.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StartError, match=r"Free disk is 1\.00 GB, the limit is 1 GB; free some space"):
        start_all(site.settings, site.processes)


@pytest.mark.parametrize(("moment", "number"), [("well", signal.SIGINT), ("starting", signal.SIGTERM)])
def test_interrupt_of_up_leaves_nothing(site: Site, moment: str, number: int) -> None:
    """A Ctrl-C reaches `guanmo up` while it starts or when all is well."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    driver = subprocess.Popen(
        [sys.executable, str(DRIVER), str(site.home), str(site.settings.hub_port), moment],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parent.parent.parent,
    )
    with driver:
        assert driver.stderr is not None
        if moment == "well":
            assert any("Ctrl-C stops it" in line for line in iter(driver.stderr.readline, ""))
        else:
            wait_for(lambda: len(site.list_pids()) >= 4)
        driver.send_signal(number)
        rest = driver.stderr.read()
        assert (driver.wait(30) == 0) is (moment == "well"), rest
    assert len(site.list_pids()) >= 4
    assert site.list_alive() == []
    assert not is_up(site.settings)
    if moment == "well":
        assert "nothing is left running" in rest


def start_well(site: Site) -> None:
    """Start a site and wait until both stand-ins are well."""
    told: list[str] = []
    start_all(site.settings, site.processes)
    wait_until_well(site.settings, timeout_s=20, tell=lambda name, _: told.append(name), processes=site.processes)
    assert sorted(told) == ["hub", "worker"]


def call_guanmo(site: Site, *arguments: str) -> Result:
    """Run a command of `guanmo` on the site; returns typer's result."""
    environment = {"GUANMO_HOME": str(site.home), "GUANMO_HUB_PORT": str(site.settings.hub_port), "COLUMNS": "120"}
    return CliRunner().invoke(app, arguments, env=environment)


def wait_for(holds: Callable[[], bool], *, timeout_s: float = 20) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.05)

"""The process starter: names, adoption, exit codes that survive, recycled pids and whole-group kills."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from serving.launch import (
    Handle,
    LaunchError,
    LaunchSpec,
    ListeningProgram,
    LocalLaunch,
    NameTakenError,
    ProcessState,
    StartFailedError,
    StillRunningError,
    WarmProgram,
)
from serving.launch.run import bound_log, read_start_ticks

PYTHON = (sys.executable, "-I", "-c")
LOADED = f"""
import pathlib, socket, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from serving.launch import forks
loads = open("loads.txt", "a")
print("loaded", file=loads, flush=True)
channel = socket.socket(fileno=int(sys.argv[1]))
forks.serve(channel)
exec(sys.argv.pop(1))
"""
LISTENING = LOADED.replace("socket.socket(fileno=int(sys.argv[1]))", "forks.listen(pathlib.Path(sys.argv[1]))")


class Forgiving(WarmProgram):
    """Forks whatever the environment says."""

    def fits(self, spec: LaunchSpec) -> bool:
        return spec.argv[: len(PYTHON)] == PYTHON


def make_warm(tmp_path: Path, kind: type[WarmProgram] = WarmProgram, code: str = LOADED, **env: str) -> WarmProgram:
    env = {"PATH": os.environ["PATH"], **env}
    return kind((*PYTHON, code), forks=PYTHON, env=env, per_start="WORD", log_path=tmp_path / "loaded.log")


@pytest.fixture
def warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WarmProgram]:
    monkeypatch.chdir(tmp_path)
    program = make_warm(tmp_path, Forgiving)
    yield program
    program.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """What listens at the socket `loaded.sock` for others to have their like forked from it."""
    with listening(tmp_path) as process:
        yield process


@contextmanager
def listening(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    before = read_inode(tmp_path / "loaded.sock")
    process = subprocess.Popen([*PYTHON, LISTENING, str(tmp_path / "loaded.sock")], cwd=tmp_path)
    try:
        wait_until(lambda: read_inode(tmp_path / "loaded.sock") != before)
        yield process
    finally:
        process.kill()
        process.wait()


def read_inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def ask_listener(tmp_path: Path) -> LocalLaunch:
    return LocalLaunch(tmp_path / "run", ListeningProgram(tmp_path / "loaded.sock", forks=PYTHON))


@pytest.fixture(params=["anew", "forked", "forked from a listener"])
def launch(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LocalLaunch]:
    starter = LocalLaunch(tmp_path / "run")
    if request.param == "forked":
        starter = LocalLaunch(tmp_path / "run", request.getfixturevalue("warm"))
    elif request.param == "forked from a listener":
        request.getfixturevalue("listener")
        starter = ask_listener(tmp_path)
    yield starter
    for handle in starter.list_mine():
        starter.fence(handle)


def make_spec(tmp_path: Path, code: str, name: str = "job-1", **env: str) -> LaunchSpec:
    return LaunchSpec(
        name=name,
        argv=(sys.executable, "-I", "-c", code),
        env={"PATH": os.environ["PATH"], **env},
        cwd=tmp_path,
        log_path=tmp_path / "logs" / f"{name}.log",
        labels={"kind": "test"},
    )


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "condition never came true"
        time.sleep(0.02)


def wait_end(launch: LocalLaunch, handle: Handle) -> int | None:
    wait_until(lambda: launch.poll(handle).state in (ProcessState.EXITED, ProcessState.LOST))
    return launch.poll(handle).exit_code


def test_exit_code_log_and_environment_are_kept(launch: LocalLaunch, tmp_path: Path) -> None:
    spec = make_spec(tmp_path, "import os, sys; print(os.environ['WORD'], os.getcwd()); sys.exit(75)", WORD="出口")
    handle = launch.start(spec)
    assert wait_end(launch, handle) == 75
    assert spec.log_path.read_text().split() == ["出口", str(tmp_path)]
    assert launch.poll(handle).ended_at is not None
    assert "出口" not in (tmp_path / "run" / "job-1.json").read_text(), "the environment may hold secrets"


def test_a_second_launch_adopts_and_reads_the_exit(launch: LocalLaunch, tmp_path: Path) -> None:
    started = launch.start(make_spec(tmp_path, "import time; time.sleep(60)"))
    other = LocalLaunch(tmp_path / "run")
    adopted = other.find("job-1")
    assert adopted == started
    assert adopted.labels == {"kind": "test"}
    assert [handle.name for handle in other.list_mine()] == ["job-1"]
    assert other.poll(adopted).state is ProcessState.RUNNING
    assert other.signal(adopted, "term")
    assert wait_end(launch, started) == -15
    assert not other.signal(adopted, "kill"), "gone already"


def test_exit_code_survives_the_starters_death(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    code = f"""
import os, sys
sys.path.insert(0, {str(root)!r})
from pathlib import Path
from serving.launch import LaunchSpec, LocalLaunch
program = "import time, sys; time.sleep(0.5); sys.exit(70)"
LocalLaunch(Path("run")).start(
    LaunchSpec("orphan", (sys.executable, "-c", program), dict(os.environ), Path("."), Path("orphan.log")))
os.kill(os.getpid(), 9)
"""
    starter = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert starter.returncode == -9
    launch = LocalLaunch(tmp_path / "run")
    handle = launch.find("orphan")
    assert handle is not None
    assert launch.poll(handle).state is ProcessState.RUNNING
    assert wait_end(launch, handle) == 70


def test_a_recycled_pid_is_never_mistaken(launch: LocalLaunch, tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-I", "-c", "import time; time.sleep(60)"], start_new_session=True)
    handle = launch.start(make_spec(tmp_path, "import time; time.sleep(60)"))
    launch.fence(handle)
    (tmp_path / "run" / "job-1.exit").unlink()
    record = json.loads((tmp_path / "run" / "job-1.json").read_text())
    (tmp_path / "run" / "job-1.json").write_text(json.dumps(record | {"pid": bystander.pid}))
    recycled = launch.find("job-1")
    assert recycled is not None
    assert launch.poll(recycled).state is ProcessState.LOST
    assert not launch.signal(recycled, "kill")
    other_boot = replace(recycled, start_ticks=read_start_ticks(bystander.pid) or 0, boot_id="another boot")
    assert not launch.signal(other_boot, "kill")
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_names_are_unique_until_forgotten(launch: LocalLaunch, tmp_path: Path) -> None:
    spec = make_spec(tmp_path, "import time; time.sleep(60)")
    handle = launch.start(spec)
    with pytest.raises(NameTakenError, match="job-1"):
        launch.start(spec)
    with pytest.raises(StillRunningError):
        launch.forget(handle)
    assert launch.fence(handle).exit_code == -9
    launch.forget(handle)
    assert launch.find("job-1") is None
    assert launch.start(spec).pid != handle.pid


def test_kill_takes_the_whole_group_and_nothing_is_left(launch: LocalLaunch, tmp_path: Path) -> None:
    child = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
    handle = launch.start(make_spec(tmp_path, child + "print(p.pid, flush=True); p.wait()"))
    wait_until(lambda: handle.log_path.exists() and handle.log_path.read_text().endswith("\n"))
    grandchild = int(handle.log_path.read_text())
    launch.signal(handle, "kill")
    assert wait_end(launch, handle) == -9
    wait_until(lambda: read_start_ticks(grandchild) is None)


def test_what_a_program_leaves_behind_is_swept(launch: LocalLaunch, tmp_path: Path) -> None:
    child = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
    handle = launch.start(make_spec(tmp_path, child + "print(p.pid, flush=True)"))
    assert wait_end(launch, handle) == 0
    assert read_start_ticks(int(handle.log_path.read_text())) is None


def test_temporary_files_go_with_the_program_killed_or_not(launch: LocalLaunch, tmp_path: Path) -> None:
    code = "import os, signal, tempfile; print(tempfile.mkdtemp(), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    spec = make_spec(tmp_path, code)
    assert wait_end(launch, launch.start(spec)) == -9
    left = Path(spec.log_path.read_text().strip())
    assert left.parent.name.startswith("gm-")
    assert not left.parent.exists()


def test_a_killed_watcher_leaves_running_then_lost(launch: LocalLaunch, tmp_path: Path) -> None:
    handle = launch.start(make_spec(tmp_path, "import time; time.sleep(60)"))
    os.kill(json.loads((tmp_path / "run" / "job-1.json").read_text())["watcher_pid"], 9)
    time.sleep(0.1)
    assert launch.poll(handle).state is ProcessState.RUNNING
    assert launch.fence(handle).state is ProcessState.LOST


def test_a_program_that_does_not_exist_says_so_and_frees_the_name(launch: LocalLaunch, tmp_path: Path) -> None:
    spec = replace(make_spec(tmp_path, ""), argv=("/no/such/program",))
    with pytest.raises(StartFailedError, match=r"job-1.*No such file.*/no/such/program"):
        launch.start(spec)
    assert launch.list_mine() == []


@pytest.mark.parametrize("name", ["", "../up", "a/b", "-x", "n" * 129])
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LaunchError, match="process name"):
        make_spec(tmp_path, "", name=name)


def count_loads(tmp_path: Path) -> int:
    written = tmp_path / "loads.txt"
    return written.read_text().count("loaded") if written.exists() else 0


def test_forks_share_one_loading_and_have_arguments_environment_and_folder_of_their_own(
    warm: WarmProgram, tmp_path: Path
) -> None:
    launch = LocalLaunch(tmp_path / "run", warm)
    code = "import os, sys, tempfile; print(os.environ['WORD'], sys.argv[1:], tempfile.gettempdir(), os.getcwd())"
    (tmp_path / "own").mkdir()
    said = []
    for name in ("job-1", "job-2"):
        spec = make_spec(tmp_path, code, name, WORD=name)
        handle = launch.start(replace(spec, argv=(*spec.argv, name), cwd=tmp_path / "own"))
        assert wait_end(launch, handle) == 0
        said.append(spec.log_path.read_text().split())
    assert [words[0] for words in said] == ["job-1", "job-2"]
    assert [words[1] for words in said] == ["['job-1']", "['job-2']"]
    assert said[0][2] != said[1][2]
    assert {words[3] for words in said} == {str(tmp_path / "own")}
    assert count_loads(tmp_path) == 1


def test_forks_outlive_the_program_that_they_were_forked_from(warm: WarmProgram, tmp_path: Path) -> None:
    launch = LocalLaunch(tmp_path / "run", warm)
    handle = launch.start(make_spec(tmp_path, "import time; time.sleep(60)"))
    warm.close()
    assert launch.poll(handle).state is ProcessState.RUNNING
    other = launch.start(make_spec(tmp_path, "", "job-2"))
    assert wait_end(launch, other) == 0
    assert count_loads(tmp_path) == 2
    assert launch.signal(handle, "term")
    assert wait_end(launch, handle) == -15


def test_a_loaded_program_ends_with_the_process_that_keeps_it(tmp_path: Path) -> None:
    code = f"""
import os, sys, time
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from tests.pool.test_launch import LocalLaunch, make_spec, make_warm, Forgiving, wait_end
warm = make_warm(Path("."), Forgiving)
launch = LocalLaunch(Path("run"), warm)
wait_end(launch, launch.start(make_spec(Path("."), "")))
print(warm._child.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    keeper = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False, stdout=subprocess.PIPE)
    assert keeper.returncode == -9
    wait_until(lambda: read_start_ticks(int(keeper.stdout)) is None)


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import os; os.kill(os.getpid(), 9)", "no python"])
def test_what_cannot_be_forked_is_started_anew(tmp_path: Path, code: str) -> None:
    warm = make_warm(tmp_path, code=code)
    launch = LocalLaunch(tmp_path / "run", warm)
    handle = launch.start(make_spec(tmp_path, "import sys; sys.exit(7)"))
    assert wait_end(launch, handle) == 7
    warm.close()


def test_only_the_same_program_in_the_same_environment_is_forked(tmp_path: Path) -> None:
    warm = make_warm(tmp_path, OMP_NUM_THREADS="1")
    same = make_spec(tmp_path, "pass", OMP_NUM_THREADS="1", WORD="own")
    assert warm.fits(same)
    assert not warm.fits(replace(same, env={**same.env, "OMP_NUM_THREADS": "2"}))
    assert not warm.fits(replace(same, env={"PATH": os.environ["PATH"]}))
    assert not warm.fits(replace(same, argv=(sys.executable, "-c", "pass")))


def test_a_loaded_program_that_hangs_is_given_up(
    tmp_path: Path, warm: WarmProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = LocalLaunch(tmp_path / "run", warm)
    wait_end(launch, launch.start(make_spec(tmp_path, "")))
    hanging = warm._child
    assert hanging is not None
    os.kill(hanging.pid, signal.SIGSTOP)
    monkeypatch.setattr(WarmProgram, "timeout_s", 0.3)
    with pytest.raises(StartFailedError, match=r"job-2.*0\.3 s"):
        launch.start(make_spec(tmp_path, "", "job-2"))
    assert hanging.poll() is not None
    assert launch.find("job-2") is None
    monkeypatch.setattr(WarmProgram, "timeout_s", 30.0)
    assert wait_end(launch, launch.start(make_spec(tmp_path, "import sys; sys.exit(9)", "job-2"))) == 9


def send_request(warm: WarmProgram, record: Path, spec: LaunchSpec) -> None:
    """Ask as one that is killed at once: nobody reads what becomes of it."""
    reader, writer = os.pipe()
    os.close(reader)
    asked = {"record": str(record), "argv": spec.argv[len(PYTHON) - 1 :], "env": dict(spec.env), "cwd": str(spec.cwd)}
    assert warm._channel is not None
    socket.send_fds(warm._channel, [json.dumps(asked).encode()], [writer])
    os.close(writer)


def test_nothing_is_forked_for_an_asker_that_is_gone(warm: WarmProgram, tmp_path: Path) -> None:
    launch = LocalLaunch(tmp_path / "run", warm)
    wait_end(launch, launch.start(make_spec(tmp_path, "")))
    spec = make_spec(tmp_path, "open('started.txt', 'w')", "job-2")
    record = launch._claim_name(spec)
    send_request(warm, record, spec)
    wait_end(launch, launch.start(make_spec(tmp_path, "import time; time.sleep(0.5)", "job-3")))  # asked after it
    assert json.loads(record.read_text())["pid"] == 0
    assert not (tmp_path / "started.txt").exists()


def test_a_start_that_is_given_up_leaves_neither_record_nor_program(launch: LocalLaunch, tmp_path: Path) -> None:
    launch._claim_name(make_spec(tmp_path, "", "job-2"))
    claimed = launch.find("job-2")
    assert claimed is not None
    launch.abandon(claimed)
    started = launch.start(make_spec(tmp_path, "import time; time.sleep(60)"))
    launch.abandon(replace(started, pid=0, start_ticks=0))  # found a moment before its pid was known
    wait_until(lambda: read_start_ticks(started.pid) is None)
    assert list((tmp_path / "run").iterdir()) == []


HINDERED = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from serving.launch import run
record = Path(sys.argv[1])
def refuse(*_):
    raise OSError(28, "No space left on device")
def start(*given):
    program = run._start_anew(*given)
    Path("pid.txt").write_text(str(program.pid))
    exec(sys.argv[3])
    return program
run.watch(record, int(sys.argv[2]), start)
"""


@pytest.mark.parametrize(
    ("hindrance", "told"), [("run.write_atomically = refuse", "No space left"), ("record.unlink()", "No such file")]
)
def test_a_program_whose_pid_cannot_be_noted_is_ended_at_once(tmp_path: Path, hindrance: str, told: str) -> None:
    record = LocalLaunch(tmp_path / "run")._claim_name(make_spec(tmp_path, "import time; time.sleep(30)"))
    reader, writer = os.pipe()
    with os.fdopen(reader) as answer:
        argv = [*PYTHON, HINDERED, str(record), str(writer), hindrance]
        subprocess.run(argv, cwd=tmp_path, pass_fds=[writer], check=True, timeout=20)
        os.close(writer)
        assert told in answer.read()
    assert read_start_ticks(int((tmp_path / "pid.txt").read_text())) is None
    assert not list((tmp_path / "run").glob("*.exit"))
    if record.exists():
        assert json.loads(record.read_text())["pid"] == 0


def test_a_folder_that_is_not_there_is_told(launch: LocalLaunch, tmp_path: Path) -> None:
    with pytest.raises(StartFailedError, match=r"job-1.*No such file.*/nowhere"):
        launch.start(replace(make_spec(tmp_path, ""), cwd=tmp_path / "nowhere"))
    assert launch.list_mine() == []


def test_a_program_holds_nothing_of_what_it_was_forked_from(launch: LocalLaunch, tmp_path: Path) -> None:
    code = "import os; print([os.path.realpath(f'/proc/self/fd/{number}') for number in os.listdir('/proc/self/fd')])"
    spec = make_spec(tmp_path, code)
    assert wait_end(launch, launch.start(spec)) == 0
    assert "null" in spec.log_path.read_text()
    assert not any(kind in spec.log_path.read_text() for kind in ("socket:", "pipe:"))


def test_who_listens_is_asked_by_any_process_of_its_user_from_any_folder(
    listener: "subprocess.Popen[bytes]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for folder in (tmp_path, Path("..")):
        launch = ask_listener(folder)
        handle = launch.start(make_spec(folder, "", f"job-{len(launch.list_mine())}"))
        assert wait_end(launch, handle) == 0
    assert count_loads(tmp_path) == 1
    assert listener.poll() is None
    assert (tmp_path / "loaded.sock").stat().st_mode & 0o777 == 0o600


def test_forks_of_a_listener_outlive_it_and_the_next_one_is_asked(tmp_path: Path) -> None:
    launch = ask_listener(tmp_path)
    with listening(tmp_path):
        handle = launch.start(make_spec(tmp_path, "import time; time.sleep(60)"))
    assert launch.poll(handle).state is ProcessState.RUNNING
    with listening(tmp_path):
        assert wait_end(launch, launch.start(make_spec(tmp_path, "", "job-2"))) == 0
    assert count_loads(tmp_path) == 2
    assert launch.fence(handle).exit_code == -9


@pytest.mark.parametrize("is_there", [False, True])
def test_where_nobody_listens_a_program_is_started_anew(tmp_path: Path, is_there: bool) -> None:
    launch = ask_listener(tmp_path)
    if is_there:
        with listening(tmp_path):
            pass  # killed, it leaves its socket behind
    assert wait_end(launch, launch.start(make_spec(tmp_path, "import sys; sys.exit(7)"))) == 7
    assert (tmp_path / "loaded.sock").exists() == is_there


def test_a_listener_that_hangs_is_not_waited_for_and_forks_nothing_later(
    listener: "subprocess.Popen[bytes]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = ask_listener(tmp_path)
    listener.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(ListeningProgram, "timeout_s", 0.3)
    with pytest.raises(StartFailedError, match=r"job-1.*0\.3 s"):
        launch.start(make_spec(tmp_path, "open('started.txt', 'w')"))
    assert launch.find("job-1") is None
    monkeypatch.setattr(ListeningProgram, "timeout_s", 30.0)
    listener.send_signal(signal.SIGCONT)
    assert wait_end(launch, launch.start(make_spec(tmp_path, "import time; time.sleep(0.5)", "job-2"))) == 0
    assert not (tmp_path / "started.txt").exists()


CHATTER = """
import time
for number in range(100_000):
    print(f"line {number:06d} " + "x" * 88, flush=True)
    time.sleep(0.001)
"""


def test_a_log_is_kept_in_two_bounded_files_and_its_writer_notices_nothing(launch: LocalLaunch, tmp_path: Path) -> None:
    handle = launch.start(replace(make_spec(tmp_path, CHATTER), log_bytes=20_000))
    log, older = handle.log_path, handle.log_path.with_name("job-1.log.1")
    wait_until(older.exists)
    first = older.read_text()
    wait_until(lambda: older.read_text() != first)
    assert launch.poll(handle).state is ProcessState.RUNNING
    assert 20_000 <= older.stat().st_size < 22_000  # what is written during the copy comes with it
    launch.fence(handle)
    numbers = [int(line.split()[1]) for line in (older.read_text() + log.read_text()).splitlines()[1:]]
    assert len(numbers) > 150
    assert numbers == sorted(numbers)
    assert sorted(path.name for path in log.parent.iterdir()) == ["job-1.log", "job-1.log.1"]


def test_a_writer_outlives_whoever_bounds_its_log(launch: LocalLaunch, tmp_path: Path) -> None:
    handle = launch.start(replace(make_spec(tmp_path, CHATTER), log_bytes=20_000))
    os.kill(json.loads((tmp_path / "run" / "job-1.json").read_text())["watcher_pid"], 9)
    wait_until(lambda: handle.log_path.stat().st_size > 60_000)
    assert launch.poll(handle).state is ProcessState.RUNNING


def test_a_full_disk_costs_the_log_and_not_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", refuse)
    log = tmp_path / "engine.log"
    log.write_bytes(b"x" * 100)
    bound_log(log, 101)
    assert log.stat().st_size == 100
    bound_log(log, 100)
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("engine.log", 0)]

"""A tiny base model and chat files for the fine-tuning tests."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from finetune.spec import Base, Checkpoint, Data, Kind, Result, RunSpec, Value
from serving.launch import Handle, LaunchSpec, ListeningProgram, LocalLaunch, ProcessState, SignalName

ROOT = Path(__file__).parents[2]
TRAINER = (sys.executable, "-P", "-m", "finetune")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}


class StartedTrainer:
    """A started trainer, waited for and signalled as a child of `subprocess` is."""

    def __init__(self, launch: LocalLaunch, handle: Handle) -> None:
        self.handle = handle
        self._launch = launch

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None while it runs."""
        observed = self._launch.poll(self.handle)
        assert observed.state is not ProcessState.LOST
        return observed.exit_code

    def wait(self) -> int:
        """Return its exit code once it ended."""
        while (exit_code := self.poll()) is None:
            time.sleep(0.01)
        return exit_code

    def signal(self, name: SignalName) -> None:
        """Send a signal."""
        self._launch.signal(self.handle, name)


Start = Callable[[RunSpec, Path], StartedTrainer]


@pytest.fixture(autouse=True)
def _restore_signals() -> Iterator[None]:
    """A run in this process listens to signals; the tests' own handlers come back after it."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in its own process, so that the libraries' warnings stay out of the tests."""
    folder = tmp_path_factory.mktemp("base")
    script = Path(__file__).with_name("tiny_base.py")
    subprocess.run([sys.executable, str(script), str(folder)], check=True, env=ENVIRONMENT, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """160 training and 24 validation rows of a task that the tiny base can learn."""
    folder = tmp_path_factory.mktemp("chats")
    rng = random.Random(1)
    for name, count in (("train", 160), ("valid", 24)):
        rows = [_write_chat(rng.choice(["pump", "valve", "belt"]), rng.randint(1, 9)) for _ in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(rows), encoding="utf-8")
    return Data(train=str(folder / "train.jsonl"), valid=str(folder / "valid.jsonl"))


@pytest.fixture
def train_spec(base: Path, chats: Data) -> RunSpec:
    """A short training run that commits after every step."""
    return RunSpec(
        kind=Kind.TRAIN,
        run_id="run_1",
        base=Base(str(base)),
        data=chats,
        recipe={"epochs": Value(3), "validations": Value(3), "learning_rate": Value(4e-3), "rank": Value(8)},
        checkpoint=Checkpoint(interval_s=0.0, keep=2),
    )


@pytest.fixture(scope="session")
def warm_trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a trainer that has its libraries and listens, as every installation has one."""
    path = tmp_path_factory.mktemp("warm") / "warm.sock"
    with keep_warm(path) as process:
        yield path
    assert process.returncode == 0


@contextmanager
def keep_warm(path: Path, program: tuple[str, ...] = ("-m", "finetune.warm")) -> Iterator["subprocess.Popen[bytes]"]:
    """Keep a warm trainer listening at the socket `path` meanwhile."""
    process = subprocess.Popen([sys.executable, *program, str(path)], cwd=ROOT, env=ENVIRONMENT)
    try:
        while not path.exists() and process.poll() is None:
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def start(warm_trainer: Path, tmp_path: Path) -> Iterator[Start]:
    """Start the trainer on a specification in a fork of the warm one; whatever still runs at the end is killed."""
    with starting(tmp_path / "warm", TRAINER, open_warm(warm_trainer)) as start_run:
        yield start_run


@pytest.fixture
def start_cold(tmp_path: Path) -> Iterator[Start]:
    """Start `python -m finetune` on a specification."""
    with starting(tmp_path / "cold", TRAINER) as start_run:
        yield start_run


def open_warm(path: Path) -> ListeningProgram:
    """Return the warm trainer at the socket `path`, from which trainers are forked."""
    return ListeningProgram(path, forks=TRAINER)


@contextmanager
def starting(folder: Path, program: tuple[str, ...], warm: ListeningProgram | None = None) -> Iterator[Start]:
    """Yield what starts `program` on a specification as a worker does; whatever still runs at the end is killed."""
    launch = LocalLaunch(folder / "processes", warm)

    def start_run(spec: RunSpec, out: Path) -> StartedTrainer:
        name = f"run-{len(launch.list_mine())}"
        path = folder / f"{name}.json"
        path.write_text(spec.to_json(), encoding="utf-8")
        out.mkdir(parents=True, exist_ok=True)
        argv, log = (*program, str(path), str(out)), folder / f"{name}.log"
        started = launch.start(LaunchSpec(name=name, argv=argv, env=ENVIRONMENT, cwd=ROOT, log_path=log))
        return StartedTrainer(launch, started)

    try:
        yield start_run
    finally:
        for handle in launch.list_mine():
            launch.fence(handle)


def read_result(out: Path) -> Result:
    """The result of a run."""
    return Result.from_json((out / "result.json").read_text(encoding="utf-8"))


def _write_chat(part: str, number: int) -> str:
    question = {"role": "user", "content": f"{part} {number} leaks"}
    answer = {"role": "assistant", "content": f"replace {part} seal {number}"}
    return json.dumps({"messages": [question, answer]}) + "\n"

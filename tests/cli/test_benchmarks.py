"""The measuring programs parse, refuse in one line when nothing runs, and time what they say they do."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import demo_times, journey
from benchmarks.answers import Door, measure_first_token, measure_throughput, write_questions
from benchmarks.hot_load import describe_spread
from benchmarks.running_market import describe_machine
from tests.cli.conftest import find_free_port

WAIT_S = 0.05


class Engine(http.server.BaseHTTPRequestHandler):
    """Answers like an engine that needs WAIT_S for its first token."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not asked["stream"]:
            return self.answer("application/json", json.dumps({"usage": {"completion_tokens": 5}}))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.write({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        time.sleep(WAIT_S)
        self.write({"choices": [{"delta": {"content": "轴"}}]})
        self.write({"choices": [], "usage": {"completion_tokens": 1}})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True
        return None

    def answer(self, kind: str, text: str) -> None:
        """Send a whole body."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def write(self, chunk: object) -> None:
        """Send one event at once."""
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def doors() -> Iterator[list[Door]]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    yield [Door("gateway", url, "a/b@1", "key"), Door("direct", url, "lora-x", "none")]
    server.shutdown()
    thread.join()
    server.server_close()


def test_first_token_is_the_first_text_not_the_first_event(doors: list[Door]) -> None:
    found = measure_first_token(doors, times=3)
    assert {name: len(values) for name, values in found.items()} == {"gateway": 3, "direct": 3}
    assert all(value >= WAIT_S * 1000 for values in found.values() for value in values)


def test_throughput_counts_the_engines_own_tokens(doors: list[Door]) -> None:
    found = measure_throughput(doors, calls=4, at_once=2)
    assert found.keys() == {"gateway", "direct"}
    assert all(rate > 0 for rate in found.values())


def test_no_question_is_asked_twice() -> None:
    questions = list(write_questions())
    assert len(questions) > 4 * 100
    assert len(set(questions)) == len(questions)


def test_spread_shows_median_and_outliers() -> None:
    assert describe_spread([1.0, 2.04, 90.0]) == {"median": 2.0, "min": 1.0, "max": 90.0, "n": 3}
    assert {"date", "commit", "cores", "load_1_min"} <= describe_machine().keys()


def test_nothing_running_is_one_plain_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert journey.main(["--home", str(tmp_path)]) == 1
    port = find_free_port()
    (tmp_path / "demo.env").write_text(f"GUANMO_URL=http://127.0.0.1:{port}\nOPENAI_BASE_URL=x\nOPENAI_API_KEY=x\n")
    (tmp_path / "demo-credentials.json").write_text('{"factory": {"email": "a@b", "password": "p"}}')
    assert journey.main(["--home", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 2
    assert shown.err.count("run 'make demo DETACH=1' first") == 2


def test_too_few_calls_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        journey.main(["--times", "29"])
    assert "--times is 29, at least 30" in capsys.readouterr().err


def test_demo_times_need_an_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_times, "ROOT", tmp_path)
    assert demo_times.main([]) == 1
    shown = capsys.readouterr()
    assert "run 'make setup' first, or give --with-setup" in shown.err
    assert shown.err.count("\n") == 1

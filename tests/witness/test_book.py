"""The witness's files: rows in order, counts of running requests that outlive the process, a death closed once."""

import subprocess
import sys
import time
from pathlib import Path

from serving.witness.book import Asked, Row, Tokens, WitnessBook, close_dead, read_rows, running_path

RUNNING = """
import sys, time
from pathlib import Path
from serving.witness.book import Asked, Tokens, WitnessBook

book = WitnessBook(Path(sys.argv[1]))
done, cut = (Asked(f"req_{letter * 32}", 1, "alw_1", "key_1", "ver_1") for letter in "ab")
first, second = book.open_slot(done), book.open_slot(cut)
book.note(second, Tokens(7, 3, 7, 0))
book.close_slot(first, done, Tokens(10, 20, 10, 4))
book.note(second, Tokens(7, 64, 7, 2))
print("there", flush=True)
time.sleep(60)
"""


def rows_of(path: Path) -> list[Row]:
    return [row for row, _offset in read_rows(path, 0)]


def asked(letter: str) -> Asked:
    return Asked.of_headers(f"req_{letter * 32}-2", "alw_1 key_1 ver_1")


def test_headers_of_a_gateway_name_the_money_and_others_do_not() -> None:
    assert asked("a") == Asked("req_" + "a" * 32, 2, "alw_1", "key_1", "ver_1")
    assert Asked.of_headers("pool-1", "alw_1 key_1 ver_1") == Asked("pool-1")
    assert Asked.of_headers(f"req_{'a' * 32}-1", "alw_1 key_1") == Asked(f"req_{'a' * 32}-1")
    assert Asked.of_headers(f"req_{'a' * 32}-1", f"{'x' * 101} key_1 ver_1").allowance_id is None
    assert len(Asked.of_headers("x" * 5000, "").request_id) == 100


def test_slots_are_used_again_and_rows_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "rep-1.jsonl"
    book = WitnessBook(path)
    for letter in "abc":
        slot = book.open_slot(asked(letter))
        book.note(slot, Tokens(5, 1, 5))
        book.close_slot(slot, asked(letter), Tokens(5, 2, 5))
    assert [(row.seq, row.request_id[4], row.prompt_tokens, row.completion_tokens) for row in rows_of(path)] == [
        (1, "a", 5, 2),
        (2, "b", 5, 2),
        (3, "c", 5, 2),
    ]
    assert running_path(path).stat().st_size == 512
    assert close_dead(path) == 0


def test_a_kill_keeps_what_was_running_and_closing_again_adds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rep-1.jsonl"
    with subprocess.Popen([sys.executable, "-c", RUNNING, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        process.kill()
    with path.open("ab") as stream:
        stream.write(b'{"seq":2,"request_id":"half')
    assert close_dead(path) == 1
    assert close_dead(path) == 0
    first, second = rows_of(path)
    assert (first.seq, first.prompt_tokens, first.completion_tokens, first.cut) == (1, 10, 20, False)
    assert (second.seq, second.prompt_tokens, second.completion_tokens, second.cut) == (2, 7, 64, True)
    assert (first.told_cached_tokens, second.told_prompt_tokens, second.told_cached_tokens) == (4, 7, 2)
    assert (second.request_id, second.attempt, second.allowance_id) == ("req_" + "b" * 32, 1, "alw_1")


def test_a_crash_between_rows_and_slots_counts_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "rep-1.jsonl"
    book = WitnessBook(path)
    book.note(book.open_slot(asked("a")), Tokens(7, 9, 7))
    slots = running_path(path).read_bytes()
    assert close_dead(path) == 1
    running_path(path).write_bytes(slots)  # as if the controller died before it removed them
    assert close_dead(path) == 0
    assert len(rows_of(path)) == 1


def test_noting_costs_an_engine_little(tmp_path: Path) -> None:
    book = WitnessBook(tmp_path / "rep-1.jsonl")
    slot = book.open_slot(asked("a"))
    began = time.perf_counter()
    for count in range(2000):
        book.note(slot, Tokens(5, count, 5))
    assert (time.perf_counter() - began) / 2000 < 200e-6

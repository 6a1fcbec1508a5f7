"""What survives a controller: epochs that only rise and a meter that only grows."""

from pathlib import Path

from serving.contract import Desired
from serving.pool.gain import GainBook
from serving.pool.memory import Memory
from tests.pool.world import make_desired


def test_epochs_rise_over_restarts(tmp_path: Path) -> None:
    assert [Memory(tmp_path).next_epoch("rep", 1) for _ in range(3)] == [1, 2, 3]
    assert Memory(tmp_path).next_epoch("other", 1) == 1
    assert Memory(tmp_path).controller_id() == Memory(tmp_path).controller_id()


def test_device_ms_adds_up_over_epochs_and_restarts(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.next_epoch("rep", 1)
    assert memory.device_ms("rep", 5_000) == 0, "starting is not ready"
    memory.mark_ready("rep", 1, 10_000)
    assert Memory(tmp_path).device_ms("rep", 13_000) == 3
    memory.mark_ready("rep", 1, 99_000)
    assert memory.device_ms("rep", 13_000) == 3, "adopting does not start the meter again"
    memory.mark_ended("rep", 1, 14_000)
    memory.mark_ended("rep", 1, 50_000)
    memory.next_epoch("rep", 1)
    memory.mark_ready("rep", 2, 20_000)
    assert Memory(tmp_path).device_ms("rep", 21_000) == 4 + 1
    memory.next_epoch("rep", 2)
    assert memory.device_ms("rep", 30_000) == 0, "a new allocation is a new meter"


def test_desired_state_is_kept_and_a_foreign_one_ignored(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    assert memory.load_desired() is None
    desired: Desired = make_desired(Path("/bases/one"))
    memory.save_desired(desired)
    assert Memory(tmp_path).load_desired() == desired
    (tmp_path / "desired.json").write_text('{"contract_version": 99}')
    assert memory.load_desired() is None


def test_gains_outlive_a_controller_and_a_file_that_cannot_be_read_is_as_none(tmp_path: Path) -> None:
    book = GainBook({"a" * 64: 3.5}, {"a" * 64: (2.0, 1_000.0)})
    Memory(tmp_path).save_gains(book)
    assert Memory(tmp_path).load_gains() == book
    for text in ("{", "[]", '{"loads": {}}', '{"loads": {}, "speed_ups": {"a": 2.0}}'):
        (tmp_path / "gains.json").write_text(text)
        assert Memory(tmp_path).load_gains() == GainBook()

"""Which logs of engines stay."""

import os
from pathlib import Path

from serving.pool.engine_logs import KEPT_LOGS, LOADED_LOG, drop_old_logs


def test_logs_of_engines_that_ended_long_ago_go_with_their_older_parts(tmp_path: Path) -> None:
    for number in range(KEPT_LOGS + 3):
        for name in (f"rep_{number:02}.log", f"rep_{number:02}.log.1"):
            (tmp_path / name).write_text("x")
            os.utime(tmp_path / name, (number, number))
    drop_old_logs(tmp_path, in_use={tmp_path / "rep_00.log"})
    left = {path.name for path in tmp_path.iterdir()}
    kept = {0, *range(3, KEPT_LOGS + 3)}
    assert left == {f"rep_{number:02}.log{part}" for number in kept for part in ("", ".1")}


def test_no_folder_is_no_logs(tmp_path: Path) -> None:
    drop_old_logs(tmp_path / "nothing", in_use=())


def test_the_log_of_the_loaded_program_stays_however_long_it_is_silent(tmp_path: Path) -> None:
    for number, name in enumerate((LOADED_LOG, *(f"rep_{number:02}.log" for number in range(KEPT_LOGS)))):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (number, number))
    drop_old_logs(tmp_path, in_use=())
    assert (tmp_path / LOADED_LOG).exists()

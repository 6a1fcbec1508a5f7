"""The healthy band of a loss curve, the checks beside it, and the same band in the stream after any reconnection."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from finetune.spec import Event, Progress
from hub.tuning.health import add_bands, check_health, draw_band
from hub.tuning.log_lines import tell_line
from hub.tuning.progress import Follower, locate_attempt, read_curve
from hub.tuning.streaming import Position, Source, stream_run
from tests.hub.runs.scene import Scene, run_until

LOSSES = st.floats(min_value=0.0, max_value=20.0)


def curve_of(*looks: float, train: float, norm: float = 1.0) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = [{"step": step, "valid_loss": loss} for step, loss in enumerate(looks)]
    points.append({"step": len(looks), "loss": train, "grad_norm": norm})
    add_bands(points)
    return points


def find_unhealthy(points: list[dict[str, Any]]) -> set[str]:
    return {check.code for check in check_health(points) if not check.ok}


def test_each_way_of_going_wrong_is_named() -> None:
    assert find_unhealthy(curve_of(3.0, 1.0, train=0.9)) == set()
    assert find_unhealthy(curve_of(3.0, 1.0, 1.5, train=0.9)) == {"held_out_steady"}
    assert find_unhealthy(curve_of(3.0, 3.1, train=2.9)) == {"better_than_base"}
    assert find_unhealthy(curve_of(3.0, 1.0, train=0.3)) == {"not_memorised"}
    assert find_unhealthy(curve_of(3.0, 1.0, train=0.9, norm=11.0)) == {"gradient_norm"}
    assert find_unhealthy(curve_of(3.0, 0.009, train=0.002)) == set()  # losses near zero are no alarm
    assert check_health([]) == []


@given(st.lists(LOSSES, min_size=1, max_size=20))
def test_the_band_only_ever_sinks_and_holds_the_best_loss(losses: list[float]) -> None:
    points: list[dict[str, Any]] = [{"step": step, "valid_loss": loss} for step, loss in enumerate(losses)]
    add_bands(points)
    best = [min(losses[: index + 1]) for index in range(len(losses))]
    for point, lowest in zip(points, best, strict=True):
        low, high = point["band"]
        assert low <= lowest <= high + 1e-6
        assert [low, high] == [round(edge, 6) for edge in draw_band(lowest)]
    highs = [point["band"][1] for point in points]
    assert highs == sorted(highs, reverse=True)


def read_stream(scene: Scene, run_id: str, position: Position) -> list[tuple[str, dict[str, Any]]]:
    """Return (id, progress line) of every line that a listener gets."""
    source = Source(scene.sessions, scene.home, run_id, scene.actors["factory"].organisation_id)
    found = []
    for text in stream_run(source, position, stream_s=0.0):
        fields = dict(line.split(": ", 1) for line in text.strip().split("\n"))
        if fields.get("event") == "progress":
            found.append((fields["id"], json.loads(fields["data"])))
    return found


def test_curve_checks_and_stream_tell_the_same_band(scene: Scene) -> None:
    run = scene.order_run(epochs=6, validations=3)
    run_until(scene.make_worker(), lambda: scene.read_run(run["id"])["state"] == "succeeded")
    shown = scene.read_run(run["id"])
    assert [point["step"] for point in shown["curve"]] == [0, 1, 2, 3, 4, 5, 6]
    assert {check["code"] for check in shown["health"]} >= {"better_than_base", "held_out_steady", "not_memorised"}
    assert all(check["ok"] for check in shown["health"] if check["code"] != "not_memorised")
    whole = read_stream(scene, run["id"], Position())
    bands = {line["step"]: line["band"] for _, line in whole if "band" in line}
    assert sorted(bands) == [0, 2, 4, 6]
    curve = {point["step"]: point["band"] for point in shown["curve"]}
    assert {step: [round(edge, 6) for edge in band] for step, band in bands.items()} == {
        step: curve[step] for step in bands
    }
    for cut in range(len(whole)):
        seen = Position(*(int(part) for part in whole[cut][0].split(".")))
        assert read_stream(scene, run["id"], seen) == whole[cut + 1 :]


def test_the_log_tells_numbers_and_fixed_names_only(scene: Scene) -> None:
    run = scene.order_run(epochs=3, validations=1)
    run_until(scene.make_worker(), lambda: scene.read_run(run["id"])["state"] == "succeeded")
    path = f"/api/v1/runs/{run['id']}/log"
    lines = [line["text"] for line in scene.call("GET", path, "factory").json["lines"]]  # type: ignore[index]
    assert lines[0] == "started"
    assert "validation step=3 held_out_loss=0.5000 held_out_token_accuracy=0.7500 best_step=3" in lines
    assert "stage evaluating_adapter" in lines
    assert scene.call("GET", path, "rival").status_code == 404
    told = tell_line(Progress(1, 1, 1, 0, Event.STAGE, metrics={"stage": "pump 7 leaks", "loss": "seal"}))
    assert told.text == "stage"


def test_after_a_reconnection_every_line_comes_and_none_twice(tmp_path: Path) -> None:
    out = locate_attempt(tmp_path, "run_1", 1)
    out.mkdir(parents=True)
    lines = [Progress(1, 1, seq, 0, Event.STEP, step=seq, metrics={"loss": 1.0}) for seq in range(1, 5001)]
    (out / "progress.jsonl").write_text("".join(line.to_json() + "\n" for line in lines))
    whole = list(Follower(tmp_path, "run_1").read_new(most=500))
    assert 400 < len(whole) < 600
    back = Follower(tmp_path, "run_1", attempt=1, seq=4800)
    assert [line.seq for line in back.read_new(most=500)] == list(range(4801, 5001))
    with (out / "progress.jsonl").open("a") as stream:
        stream.write(replace(lines[0], seq=5001).to_json() + "\n" + lines[1].to_json()[:20])
    assert [line.seq for line in back.read_new(most=500)] == [5001]  # a torn line waits for its rest


def test_of_a_step_trained_again_the_newer_point_counts(tmp_path: Path) -> None:
    for attempt, steps in ((1, (1, 2, 3)), (2, (2, 3, 4))):
        out = locate_attempt(tmp_path, "run_1", attempt)
        out.mkdir(parents=True)
        lines = [
            Progress(attempt, attempt, seq, 0, Event.STEP, step=step, metrics={"loss": float(attempt)})
            for seq, step in enumerate(steps, start=1)
        ]
        (out / "progress.jsonl").write_text("".join(line.to_json() + "\n" for line in lines))
    points = [(point["step"], point["loss"]) for point in read_curve(tmp_path, "run_1")]
    assert points == [(1, 1.0), (2, 2.0), (3, 2.0), (4, 2.0)]

"""`guanmo rollout` against a running hub: start with cases from a file, shift, promote, list; a refusal is one line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hub.cli.calling import HubCallError
from hub.cli.main import app
from tests.hub.runs.scene import Scene
from tests.hub.runs.test_deployments import observe
from tests.hub.runs.test_rollouts import NAME, Stage
from tests.web import served


@pytest.fixture
def hub(scene: Scene) -> Iterator[str]:
    with served(scene.app) as base:
        yield base


def test_the_owner_rolls_out_from_a_terminal(scene: Scene, hub: str, tmp_path: Path) -> None:
    stage = Stage(scene)
    cases = tmp_path / "cases.jsonl"
    cases.write_text(json.dumps({"prompt": "pump leaks", "expected": "replace seal"}) + "\n")

    def run(*words: str) -> str:
        options = ["--hub", hub, "--key", scene.token_of("factory")]
        result = CliRunner().invoke(app, ["rollout", *words, *options])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output

    assert "waiting" in run("start", stage.version, "--percent", "5", "--cases", str(cases))
    observe(scene, stage.epoch, a="ready", b="ready")
    rollout_id = stage.read()["id"]
    assert "50 %" in run("shift", rollout_id, "--percent", "50")
    assert "promoted" in run("promote", rollout_id)
    assert NAME in run("list")
    with pytest.raises(HubCallError, match="promoted"):
        run("take-back", rollout_id)

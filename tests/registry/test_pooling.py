"""What a published embedding folder says about itself, read for the engine or refused."""

import os
import subprocess
import sys
from pathlib import Path

from registry.base_check import check_base

ENVIRONMENT = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
WRITER = Path(__file__).parents[1] / "pool" / "make_bert.py"


def test_what_a_folder_says_about_pooling_is_read_or_refused(tmp_path: Path) -> None:
    environment = ENVIRONMENT | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, WRITER, tmp_path / "bert"], env=environment, check=True)
    pooling = tmp_path / "bert" / "1_Pooling" / "config.json"
    facts = check_base(tmp_path / "bert").facts
    assert facts is not None
    assert (facts.task, facts.pooling, facts.normalize, facts.context_length) == ("embed", "MEAN", True, 128)
    pooling.write_text('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}')
    refused = check_base(tmp_path / "bert")
    assert not refused.report.passed
    pooling.unlink()
    bare = check_base(tmp_path / "bert").facts
    assert bare is not None
    assert (bare.task, bare.pooling) == ("embed", "CLS")

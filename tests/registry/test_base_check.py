"""The gate for importing a Hugging Face folder: facts of sound ones, findings on the others, templates in a child."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from registry.base_check import check_base
from registry.base_facts import read_license
from registry.store import FolderStore
from registry.template_check import render_template
from tests.registry.builders import CONFIG, TEMPLATE, base_tensors, raw_safetensors

CARD = "---\nlanguage: zh\nlicense: apache-2.0\n---\n# 模型\n"


def test_sound_folder_gives_its_facts(base: Path, tmp_path: Path) -> None:
    (base / "README.md").write_text(CARD)
    (base / "figure.png").write_bytes(b"x")
    checked = check_base(base)
    assert checked.report.refusals == []
    assert [check.name for check in checked.report.warnings] == ["files.left_out"]
    facts = checked.facts
    assert facts is not None
    assert (facts.architecture, facts.model_type, facts.dtype) == ("Qwen2ForCausalLM", "qwen2", "F32")
    assert facts.parameters == sum(tensor.size for tensor in base_tensors().values())
    assert facts.size_bytes == 4 * facts.parameters
    assert (facts.vocab_size, facts.context_length, facts.hidden_size, facts.layers) == (32, 64, 8, 2)
    assert facts.license == "apache-2.0"
    stored = FolderStore(tmp_path / "artifacts").add_folder(base, checked.import_names)
    assert "figure.png" not in stored.files
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= stored.files.keys()


@pytest.mark.parametrize("name", ["modeling_x.py", "pytorch_model.bin", "x.pkl", "y.PT", "a.tar.gz"])
def test_code_and_pickles_are_refused(base: Path, name: str) -> None:
    (base / name).write_bytes(b"x")
    checked = check_base(base)
    assert [(check.name, check.subject) for check in checked.report.refusals] == [("files.names", name)]
    assert name not in checked.import_names


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_missing_files_are_named(base: Path, name: str) -> None:
    (base / name).unlink()
    assert name in {check.subject for check in check_base(base).report.refusals}


@pytest.mark.parametrize(
    ("file", "entry", "subject"),
    [
        ("config.json", {"auto_map": {"AutoModel": "modeling.X"}}, "auto_map"),
        (
            "config.json",
            {"text": {"trust_remote_code": True}, "text.trust_remote_code": None},
            "text.trust_remote_code",
        ),
        ("tokenizer_config.json", {"auto_map": ["x", None]}, "auto_map"),
        ("generation_config.json", {"custom_pipelines": {"x": 1}}, "custom_pipelines"),
    ],
)
def test_keys_that_load_code_are_refused(base: Path, file: str, entry: dict[str, Any], subject: str) -> None:
    path = base / file
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | entry))
    assert [(c.name, c.subject) for c in check_base(base).report.refusals] == [("json.no_code", subject)]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", None),
        ("model_type", "a/b"),
        ("architectures", []),
        ("architectures", ["x y"]),
        ("vocab_size", 0),
        ("hidden_size", "8"),
        ("num_hidden_layers", True),
        ("max_position_embeddings", 10**400),
    ],
)
def test_config_without_facts_is_refused(base: Path, key: str, value: Any) -> None:
    (base / "config.json").write_text(json.dumps({**CONFIG, key: value}))
    checked = check_base(base)
    assert checked.facts is None
    assert [check.subject for check in checked.report.refusals] == [key]


def test_shards_must_be_complete(base: Path) -> None:
    tensors = base_tensors()
    (base / "model.safetensors").unlink()
    save_file(tensors, base / "model-00001-of-00002.safetensors")
    assert check_base(base).report.failed("weights.header")
    save_file({"model.extra.weight": np.ones((2, 2), np.float32)}, base / "model-00002-of-00002.safetensors")
    assert check_base(base).report.passed
    save_file(tensors, base / "model-00002-of-00002.safetensors")
    assert check_base(base).report.failed("weights.header")


def test_broken_weights_are_a_finding(base: Path) -> None:
    (base / "model.safetensors").write_bytes(raw_safetensors(b'{"a":1}'))
    checked = check_base(base)
    assert [check.name for check in checked.report.refusals] == ["weights.header"]
    assert checked.facts is None


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "processor time"),
        ("{{ 'a' * 3000000000 }}", "too much memory"),
        ("{{ messages[0].content }}{{ 'ab' * 300000 }}", "262144"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{% include '/etc/passwd' %}", "TypeError"),
        ("{{ raise_exception('no') }}", "no"),
        ("{% for %}", "TemplateSyntaxError"),
        ("constant", "drops"),
        ("x" * 70_000, "65536"),
    ],
)
def test_bad_templates_are_refused_in_time(base: Path, template: str, reason: str) -> None:
    (base / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    started = time.perf_counter()
    (check,) = check_base(base).report.refusals
    assert time.perf_counter() - started < 60
    assert check.name == "template.renders"
    assert reason in check.message_en


def test_template_file_is_capped_before_it_is_read(base: Path) -> None:
    (base / "chat_template.jinja").write_text("x" * 70_000)
    assert [check.name for check in check_base(base).report.refusals] == ["files.size"]


def test_templates_render_as_in_transformers(base: Path) -> None:
    assert render_template(TEMPLATE, [{"role": "user", "content": "你好"}]) == {"text": "<|user|>你好"}
    marked = "{% for m in messages %}{% generation %}{{ m.content|tojson }}{% endgeneration %}{% endfor %}"
    assert render_template(marked, [{"role": "user", "content": "“好”"}]) == {"text": '"“好”"'}
    (base / "tokenizer_config.json").write_text("{}")
    report = check_base(base).report
    assert report.passed
    assert [check.name for check in report.warnings] == ["template.present"]


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        (CARD, "apache-2.0"),
        ("---\nlicense: 'mit'\n---\n", "mit"),
        ("license: mit\n", None),
        ("---\na: &a [*a]\n---\nlicense: mit", None),
        ("---\nlicense: !!python/object:os.system x\n---\n", None),
        ("---\nlicense: mit\n", None),
    ],
)
def test_licence_comes_from_the_front_matter_only(tmp_path: Path, text: str, licence: str | None) -> None:
    (tmp_path / "README.md").write_text(text)
    assert read_license(tmp_path / "README.md") == licence

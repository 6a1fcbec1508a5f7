"""What an OpenAI client may send to create a fine-tuning job, and what it means here. Pure.

Extensions travel in `metadata`: guanmo_offer (an offer's id; else the cheapest), guanmo_max_fen (most own money that
the job may hold), guanmo_deploy ("false": do not serve the result). It leaves acting to `hub.tuning.openai_jobs`.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from hub.errors import InvalidValueError
from hub.tuning.standing_orders import DEFAULT_MAX_FEN
from hub.web import Body

MAX_EPOCHS, MAX_BATCH_ROWS, MAX_MULTIPLIER = 50, 256, 100.0
MAX_FEN = 10**12
_EXTENSIONS = ("guanmo_offer", "guanmo_max_fen", "guanmo_deploy")
_MAX_METADATA, _MAX_KEY, _MAX_VALUE, _MAX_SUFFIX = 16, 64, 512, 64
_NOT_NAME = re.compile(r"[^a-z0-9]+")
Auto = Literal["auto"]


class Hyperparameters(Body):
    """Each a number, or `auto` for the recipe's own choice."""

    n_epochs: Auto | int | None = None
    batch_size: Auto | int | None = None
    learning_rate_multiplier: Auto | float | None = None


class Supervised(Body):
    """The settings of supervised fine-tuning."""

    hyperparameters: Hyperparameters | None = None


class Method(Body):
    """How to tune; only `supervised` is offered."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Supervised | None = None
    dpo: dict[str, Any] | None = None
    reinforcement: dict[str, Any] | None = None


class JobBody(Body):
    """The body of POST /v1/fine_tuning/jobs. Source: openai-python `types/fine_tuning/job_create_params.py`."""

    model: str = Field(min_length=1, max_length=200)
    training_file: str = Field(min_length=1, max_length=100)
    validation_file: str | None = None
    hyperparameters: Hyperparameters | None = None
    integrations: list[dict[str, Any]] | None = None
    metadata: dict[str, str] | None = None
    method: Method | None = None
    seed: int | None = Field(None, ge=0, le=2**31 - 1)
    suffix: str | None = None


@dataclass(frozen=True)
class Wish:
    """A job in this room's words."""

    model_name: str
    recipe: dict[str, int | float | str]
    terms: dict[str, Any]
    deploy: bool
    asked: dict[str, Any]


def read_wish(body: JobBody) -> Wish:
    """Return what a job's body asks for.

    Raises:
        InvalidValueError: a value out of range or one that is not offered; `field` is OpenAI's `param`.
    """
    _refuse_unsupported(body)
    metadata = dict(body.metadata or {})
    _check_metadata(metadata)
    hyperparameters, where = _choose_hyperparameters(body)
    return Wish(
        model_name=_name_model(body),
        recipe=_read_recipe(hyperparameters, where),
        terms={"offer_id": metadata.get("guanmo_offer"), "max_fen": _read_limit(metadata)},
        deploy=_read_deploy(metadata),
        asked={
            "suffix": body.suffix,
            "metadata": body.metadata,
            "hyperparameters": hyperparameters.model_dump(exclude_none=True),
        },
    )


def _refuse_unsupported(body: JobBody) -> None:
    if body.method is not None and body.method.type != "supervised":
        raise _refuse("method.type", body.method.type, "only 'supervised' is offered here", "仅支持 supervised")
    if body.integrations:
        raise _refuse("integrations", f"{len(body.integrations)} entries", "none is offered; send none", "不支持集成")


def _choose_hyperparameters(body: JobBody) -> tuple[Hyperparameters, str]:
    inner = body.method.supervised.hyperparameters if body.method and body.method.supervised else None
    if inner is not None:
        return inner, "method.supervised.hyperparameters"
    return body.hyperparameters or Hyperparameters(), "hyperparameters"


def _read_recipe(given: Hyperparameters, where: str) -> dict[str, int | float | str]:
    wanted = {
        "epochs": ("n_epochs", given.n_epochs, 1, MAX_EPOCHS),
        "batch_rows": ("batch_size", given.batch_size, 1, MAX_BATCH_ROWS),
        "learning_rate_multiplier": ("learning_rate_multiplier", given.learning_rate_multiplier, 0.01, MAX_MULTIPLIER),
    }
    recipe: dict[str, int | float | str] = {}
    for ours, (theirs, value, low, high) in wanted.items():
        if value is None or isinstance(value, str):
            continue
        if not low <= value <= high:
            text = f"use 'auto' or a number between {low:g} and {high:g}"
            raise _refuse(f"{where}.{theirs}", value, text, f"应为 auto 或 {low:g} 至 {high:g}")
        recipe[ours] = value
    return recipe


def _check_metadata(metadata: Mapping[str, str]) -> None:
    if len(metadata) > _MAX_METADATA:
        raise _refuse("metadata", f"{len(metadata)} pairs", f"at most {_MAX_METADATA}", f"最多 {_MAX_METADATA} 对")
    for key, value in metadata.items():
        if len(key) > _MAX_KEY or len(value) > _MAX_VALUE:
            text = f"a key has at most {_MAX_KEY} characters, a value {_MAX_VALUE}"
            raise _refuse(f"metadata.{key[:64]}", f"{len(value)} characters", text, "键或值过长")
        if key.startswith("guanmo_") and key not in _EXTENSIONS:
            raise _refuse(
                f"metadata.{key}", value, f"known: {', '.join(_EXTENSIONS)}", f"可用：{', '.join(_EXTENSIONS)}"
            )


def _read_limit(metadata: Mapping[str, str]) -> int:
    text = metadata.get("guanmo_max_fen", str(DEFAULT_MAX_FEN))
    if not text.isascii() or not text.isdecimal() or int(text[:20]) > MAX_FEN:
        raise _refuse("metadata.guanmo_max_fen", text, f"send a whole number of fen, 0..{MAX_FEN}", "应为整数分")
    return int(text)


def _read_deploy(metadata: Mapping[str, str]) -> bool:
    text = metadata.get("guanmo_deploy", "true")
    if text not in ("true", "false"):
        raise _refuse("metadata.guanmo_deploy", text, "send 'true' or 'false'", "应为 true 或 false")
    return text == "true"


def _name_model(body: JobBody) -> str:
    """`suffix` as a model's name; without one the base's name with `-ft`."""
    if body.suffix is not None and not 1 <= len(body.suffix) <= _MAX_SUFFIX:
        raise _refuse(
            "suffix", body.suffix[:80], f"use 1 to {_MAX_SUFFIX} characters", f"应为 1 至 {_MAX_SUFFIX} 个字符"
        )
    base = body.model.partition("@")[0].rpartition("/")[2]
    text = unicodedata.normalize("NFKC", body.suffix or f"{base[:60]}-ft").lower()
    name = _NOT_NAME.sub("-", text).strip("-")
    if not name:
        raise _refuse("suffix", body.suffix, "use Latin letters, digits and hyphens", "请使用字母、数字和连字符")
    return name


def _refuse(param: str, value: object, en: str, zh: str) -> InvalidValueError:
    return InvalidValueError(f"{param} is {value!r}; {en}.", f"{param} 为 {value!r}：{zh}。", field=param)

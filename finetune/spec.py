"""The messages between a worker and a trainer: what to run, how far it is, how it ended.

Leaves reading files, training and any decision about money to others; imports the standard library only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from finetune.codec import Json, SpecError, dump, load
from finetune.recipe_bounds import BOUNDS, RANKS, Bound, check_recipe_value

__all__ = [
    "BOUNDS",
    "RANKS",
    "SPEC_VERSION",
    "Base",
    "Bound",
    "Checkpoint",
    "ColumnRole",
    "Data",
    "Event",
    "ExitCode",
    "Fault",
    "FixAction",
    "Json",
    "Kind",
    "Limits",
    "Progress",
    "Result",
    "RunSpec",
    "Source",
    "SourceFormat",
    "SpecError",
    "State",
    "Value",
    "check_recipe_value",
]

SPEC_VERSION = 1


class Kind(StrEnum):
    """What a run does: read raw data, price a run, or train."""

    CHECK = "check"
    PLAN = "plan"
    TRAIN = "train"


class Fault(StrEnum):
    """Whose fault an unfinished run is; decides the refund."""

    USER = "user"
    PLATFORM = "platform"
    PROVIDER = "provider"
    NONE = "none"


class State(StrEnum):
    """How a run ended."""

    SUCCEEDED = "succeeded"
    EARLY_STOPPED = "early_stopped"
    FAILED = "failed"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"


class ExitCode(IntEnum):
    """Exit status of `python -m finetune`; valid only together with result.json."""

    DONE = 0
    FAILED = 1
    OUT_OF_MEMORY = 70
    PREEMPTED = 75
    CANCELLED = 76
    DATA = 78


class SourceFormat(StrEnum):
    """File format of a raw upload."""

    JSONL = "jsonl"
    CSV = "csv"
    XLSX = "xlsx"


class ColumnRole(StrEnum):
    """What a column of a raw upload means."""

    PROMPT = "prompt"
    COMPLETION = "completion"
    SYSTEM = "system"
    GROUP = "group"
    SPLIT = "split"


class FixAction(StrEnum):
    """A correction that the customer asked for, for every finding of one code."""

    DROP = "drop"
    MASK = "mask"
    NORMALISE = "normalise"


class Event(StrEnum):
    """Type of a progress line."""

    STARTED = "started"
    STAGE = "stage"
    RESUMED = "resumed"
    STEP = "step"
    VALIDATION = "validation"
    CHECKPOINT = "checkpoint"
    EVALUATED = "evaluated"
    FINISHED = "finished"


@dataclass(frozen=True)
class Base:
    """Folder of a base model in Hugging Face format; a digest that is given is checked before use."""

    path: str
    weights_digest: str | None = None
    tokenizer_digest: str | None = None
    template_digest: str | None = None


@dataclass(frozen=True)
class Data:
    """`source` is the raw upload (kind check); `train` and `valid` are chat JSONL files that check wrote.

    `digests` maps source, train, valid to the sha256 of the file; what is given is checked before use.
    `mapping` is column name -> role; empty means guess. `fixes` is code of the report -> correction wished for.
    A check of `train` and `valid` instead of a source shows their tokens with the base's tokenizer.
    """

    source: str | None = None
    format: SourceFormat | None = None
    mapping: Mapping[str, ColumnRole] = field(default_factory=dict)
    train: str | None = None
    valid: str | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    fixes: Mapping[str, FixAction] = field(default_factory=dict)


class Source(StrEnum):
    """Where a recipe value comes from, unless from a paper or a library's documentation, which is then named."""

    DATA = "data"
    OWNER = "owner's setting"
    MEASURED = "our measurement"
    DEFAULT = "our default"


@dataclass(frozen=True)
class Value:
    """One recipe value, why it was chosen (in both languages) and where that comes from: a `Source` or a citation,
    joined by "; "."""

    value: int | float | str
    reason: str = "set by the caller"
    source: str = Source.OWNER.value
    reason_zh: str = "由调用方指定"


@dataclass(frozen=True)
class Limits:
    """Upper bounds; `deadline_at` in µs UTC. `tokens_per_s` lets a plan skip its measured micro-run.

    `batch_tokens`: most padded tokens on the device at once; a larger step is added up from parts, the plan stays.
    `file_bytes`: largest file that may be written; a larger one ends the run as `storage_failed`.
    `memory_bytes`: most memory of a run on a CPU; beyond it the run ends as `out_of_memory`.
    """

    steps: int | None = None
    tokens: int | None = None
    device_ms: int | None = None
    deadline_at: int | None = None
    tokens_per_s: float | None = None
    batch_tokens: int | None = None
    file_bytes: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Checkpoint:
    """How often to commit training state and how many commits to keep."""

    interval_s: float = 60.0
    keep: int = 2


@dataclass(frozen=True)
class RunSpec:
    """Everything a trainer needs; `resume_from` is the OUT folder of an earlier attempt.

    `rate_factor` times the recipe's learning rate is what steps take: below 1 after a loss that was no number. The plan
    and its digest stay.
    """

    kind: Kind
    run_id: str
    data: Data
    base: Base | None = None
    attempt: int = 1
    fence: int = 0
    recipe: Mapping[str, Value] = field(default_factory=dict)
    seed: int = 42
    limits: Limits = field(default_factory=Limits)
    device: str = "cpu"
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    resume_from: str | None = None
    rate_factor: float = 1.0
    spec_version: int = SPEC_VERSION

    def __post_init__(self) -> None:
        if self.spec_version != SPEC_VERSION:
            raise SpecError("unsupported_version", "spec_version", f"is {self.spec_version}; use {SPEC_VERSION}.")
        _require_at_least(1, self.attempt, "attempt")
        _require_at_least(1, self.checkpoint.keep, "checkpoint.keep")
        for name in ("steps", "tokens", "device_ms", "deadline_at", "batch_tokens", "file_bytes", "memory_bytes"):
            _require_at_least(1, getattr(self.limits, name), f"limits.{name}")
        if self.limits.tokens_per_s is not None and not self.limits.tokens_per_s > 0:
            raise SpecError("invalid_value", "limits.tokens_per_s", f"is {self.limits.tokens_per_s}; use more than 0.")
        if not 0 < self.rate_factor <= 1:
            raise SpecError("invalid_value", "rate_factor", f"is {self.rate_factor}; use more than 0, at most 1.")
        if self.kind is Kind.CHECK and (self.data.train is None or self.data.source is not None):
            _require(self.data.source, "data.source", self.kind)
            _require(self.data.format, "data.format", self.kind)
            return
        _require(self.base, "base", self.kind)
        _require(self.data.train, "data.train", self.kind)
        _require(self.data.valid, "data.valid", self.kind)
        if self.device != "cpu" and self.device != "cuda" and not self.device.startswith("cuda:"):
            raise SpecError("invalid_value", "device", f"is {self.device!r}; use cpu, cuda or cuda:N.")

    def to_json(self) -> str:
        """One-line JSON text."""
        return dump(self)

    @classmethod
    def from_json(cls, text: str) -> "RunSpec":
        """Parse; raises SpecError for unknown, missing and mistyped fields."""
        return load(cls, text)


@dataclass(frozen=True)
class Progress:
    """One line of progress.jsonl; `at` in µs UTC, `tokens` and `device_ms` cumulative over all attempts.

    `committing_ms`: how long this attempt wrote commits and evaluated adapters, which is no device time.
    """

    attempt: int
    fence: int
    seq: int
    at: int
    type: Event
    step: int = 0
    tokens: int = 0
    committed_step: int = 0
    device_ms: int = 0
    metrics: Mapping[str, Json] = field(default_factory=dict)
    committing_ms: int = 0

    def to_json(self) -> str:
        """One-line JSON text."""
        return dump(self)

    @classmethod
    def from_json(cls, text: str) -> "Progress":
        """Parse; raises SpecError for unknown, missing and mistyped fields."""
        return load(cls, text)


@dataclass(frozen=True)
class Result:
    """result.json, written last.

    `tokens`: kind plan, the tokens that a full run trains; kind train, the tokens trained (all attempts).
    `billable_device_ms`: committed progress over all attempts. `elapsed_device_ms`: this attempt's wall time.
    `digests`: file name in OUT -> sha256.
    """

    run_id: str
    attempt: int
    fence: int
    kind: Kind
    state: State
    reason_code: str
    fault: Fault
    message: str = ""
    plan_digest: str | None = None
    artifact_digest: str | None = None
    step: int = 0
    tokens: int = 0
    billable_device_ms: int = 0
    elapsed_device_ms: int = 0
    metrics: Mapping[str, Json] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    spec_version: int = SPEC_VERSION

    def to_json(self) -> str:
        """One-line JSON text."""
        return dump(self)

    @classmethod
    def from_json(cls, text: str) -> "Result":
        """Parse; raises SpecError for unknown, missing and mistyped fields."""
        return load(cls, text)


def _require_at_least(least: int, value: int | None, name: str) -> None:
    if value is not None and value < least:
        raise SpecError("invalid_value", name, f"is {value}; use at least {least}.")


def _require(value: object, name: str, kind: Kind) -> None:
    if value is None:
        raise SpecError("missing_field", name, f"missing; a {kind} run needs it.")

"""The states of a run, which may follow which, and how they read as OpenAI statuses. Pure.

It leaves moving a row from one to the next to `hub.tuning.moves`. Source: research/finetune.md section 6.1.
"""

from collections.abc import Mapping
from enum import StrEnum


class RunState(StrEnum):
    """Where a run stands."""

    VALIDATING = "validating"
    PLANNED = "planned"
    QUOTED = "quoted"
    QUEUED = "queued"
    PROVISIONING = "provisioning"
    WAITING_CAPACITY = "waiting_capacity"
    PREPARING = "preparing"
    RUNNING = "running"
    EVALUATING = "evaluating"
    GATING = "gating"
    PUBLISHING = "publishing"
    PAUSED = "paused"
    RECOVERING = "recovering"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    EARLY_STOPPED = "early_stopped"
    HELD = "held"
    INVALID = "invalid"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    FAILED = "failed"


class AttemptState(StrEnum):
    """Whether an attempt may still write."""

    ACTIVE = "active"
    ENDED = "ended"
    LOST = "lost"


TERMINAL = frozenset(
    {
        RunState.SUCCEEDED,
        RunState.EARLY_STOPPED,
        RunState.HELD,
        RunState.INVALID,
        RunState.EXPIRED,
        RunState.CANCELLED,
        RunState.FAILED,
    }
)
DELIVERED = frozenset({RunState.SUCCEEDED, RunState.EARLY_STOPPED, RunState.HELD})
"""Terminal states in which the work was done and is billed as quoted."""

PARKED = frozenset({RunState.QUEUED, RunState.WAITING_CAPACITY, RunState.RECOVERING})
"""Ordered, but no trainer runs: what is wanted takes effect at once."""

TRAINED = frozenset({RunState.GATING, RunState.PUBLISHING})
"""The work is done and its bill fixed; only the gate decides yet."""

UNORDERED = frozenset({RunState.VALIDATING, RunState.PLANNED, RunState.QUOTED})
"""States before an order: no money is held and no trainer runs."""

_STARTED = frozenset({RunState.PREPARING, RunState.RUNNING, RunState.EVALUATING})
_ENDING = frozenset({RunState.CANCELLING, RunState.FAILED})

TRANSITIONS: Mapping[RunState, frozenset[RunState]] = {
    RunState.VALIDATING: frozenset({RunState.PLANNED, RunState.INVALID, RunState.CANCELLED, RunState.FAILED}),
    RunState.PLANNED: frozenset({RunState.QUOTED, RunState.EXPIRED, RunState.CANCELLED, RunState.FAILED}),
    RunState.QUOTED: frozenset(
        {RunState.QUOTED, RunState.QUEUED, RunState.EXPIRED, RunState.CANCELLED, RunState.FAILED}
    ),
    RunState.QUEUED: frozenset({RunState.PROVISIONING, RunState.PAUSED, RunState.CANCELLED}) | _ENDING,
    RunState.PROVISIONING: frozenset({RunState.PREPARING, RunState.WAITING_CAPACITY, RunState.RECOVERING}) | _ENDING,
    RunState.WAITING_CAPACITY: frozenset({RunState.PROVISIONING, RunState.PAUSED, RunState.CANCELLED}) | _ENDING,
    RunState.PREPARING: frozenset(
        {RunState.RUNNING, RunState.EVALUATING, RunState.GATING, RunState.PAUSED, RunState.RECOVERING}
    )
    | _ENDING,
    RunState.RUNNING: frozenset({RunState.EVALUATING, RunState.GATING, RunState.PAUSED, RunState.RECOVERING}) | _ENDING,
    RunState.EVALUATING: frozenset({RunState.GATING, RunState.PAUSED, RunState.RECOVERING}) | _ENDING,
    RunState.GATING: frozenset({RunState.PUBLISHING, RunState.HELD, RunState.FAILED}),
    RunState.PUBLISHING: frozenset({RunState.SUCCEEDED, RunState.EARLY_STOPPED, RunState.FAILED}),
    RunState.PAUSED: frozenset({RunState.QUEUED, RunState.CANCELLED, RunState.FAILED}),
    RunState.RECOVERING: frozenset({RunState.PROVISIONING, RunState.PAUSED, RunState.CANCELLED}) | _ENDING,
    # A trainer may finish between the wish to cancel and the signal: then the work is delivered.
    RunState.CANCELLING: frozenset({RunState.CANCELLED, RunState.GATING, RunState.FAILED}),
} | {state: frozenset() for state in TERMINAL}

_OPENAI = {
    RunState.VALIDATING: "validating_files",
    RunState.PLANNED: "validating_files",
    RunState.QUOTED: "validating_files",
    RunState.QUEUED: "queued",
    RunState.PROVISIONING: "queued",
    RunState.WAITING_CAPACITY: "queued",
    RunState.SUCCEEDED: "succeeded",
    RunState.EARLY_STOPPED: "succeeded",
    RunState.HELD: "succeeded",
    RunState.INVALID: "failed",
    RunState.EXPIRED: "failed",
    RunState.FAILED: "failed",
    RunState.CANCELLED: "cancelled",
}


def may_follow(before: RunState, after: RunState) -> bool:
    """Return whether a run may go from one state to the other."""
    return after in TRANSITIONS[before]


def openai_status(state: RunState) -> str:
    """Return the status word of OpenAI's fine-tuning jobs for a state."""
    return _OPENAI.get(state, "running")


def is_started(state: RunState) -> bool:
    """Return whether a trainer may be alive in this state."""
    return state in _STARTED or state is RunState.CANCELLING

"""When a rollout takes itself back; pure, no session.

It leaves counting calls to `hub.metering` and asking cases to `hub.tuning`.
"""

LEAST_CALLS = 20
"""Below so many calls of the new version its error rate says nothing."""
ERRORS = "too_many_errors"
WORSE = "answers_worse"
MAX_ERROR_PERCENT = 5
MAX_DROP_PERCENT = 5
MOST_CASES = 50


def has_too_many_errors(stable: tuple[int, int], candidate: tuple[int, int], *, max_error_percent: int) -> bool:
    """Whether (calls, failures) of the new version exceed the limit above the error rate of the stable one."""
    calls, failures = candidate
    if calls < LEAST_CALLS:
        return False
    known = stable[1] / stable[0] if stable[0] >= LEAST_CALLS else 0.0
    return failures / calls > known + max_error_percent / 100


def answers_worse(stable_score: float, score: float, *, max_drop_percent: int) -> bool:
    """Whether the new version's mean score (0 to 1) on the cases is too far below the stable one's."""
    return score < stable_score - max_drop_percent / 100

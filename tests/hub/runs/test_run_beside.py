"""Work that blocks runs beside the loop: begun once, looked at, its result or its named error taken once."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from hub.jobs.service import Claim
from hub.jobs.work import DONE, Outcome, Verdict, Work, failed, later, run_beside
from tests.hub.runs.scene import Scene


@dataclass
class Held(Executor):
    """Keeps what it was given until the test lets it go."""

    given: list[tuple[Future[Any], Callable[[], Any]]] = field(default_factory=list)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Take a call."""
        self.given.append((Future(), fn))
        return self.given[-1][0]

    def let_go(self) -> None:
        """Make the calls taken so far."""
        for future, call in self.given:
            try:
                future.set_result(call())
            except Exception as error:  # noqa: BLE001  a future carries any error
                future.set_exception(error)
        self.given.clear()


CLAIM = Claim("job_1", "token", "kind", "subject", "org_1", {}, 1, 0)


def look(work: Work, call: Callable[[], int] | Verdict, taken: list[int]) -> Verdict:
    def take(result: int) -> Verdict:
        taken.append(result)
        return DONE

    errors = {TimeoutError: lambda _: failed("late"), OSError: lambda _: failed("gone")}
    return run_beside(work, CLAIM, begin=lambda: call, take=take, errors=errors)


def test_it_is_begun_once_and_its_result_taken_once(scene: Scene) -> None:
    held, taken = Held(), list[int]()
    work = replace(scene.work, slow=held)
    for _ in range(3):
        assert look(work, lambda: 7, taken).outcome is Outcome.AGAIN
    assert len(held.given) == 1
    held.let_go()
    assert look(work, lambda: 7, taken) is DONE
    assert (taken, work.pending) == ([7], {})


def test_what_cannot_begin_says_when_and_leaves_nothing(scene: Scene) -> None:
    work = replace(scene.work, slow=Held())
    assert look(work, later(3.0), []) == later(3.0)
    assert work.pending == {}


@pytest.mark.parametrize(("error", "told"), [(TimeoutError(), "late"), (ConnectionError(), "gone")])
def test_a_named_error_is_told_by_the_first_name_that_fits(scene: Scene, error: Exception, told: str) -> None:
    held = Held()
    work = replace(scene.work, slow=held)

    def fail() -> int:
        raise error

    look(work, fail, [])
    held.let_go()
    assert look(work, fail, []) == failed(told)
    assert work.pending == {}


def test_any_other_error_goes_up(scene: Scene) -> None:
    held = Held()
    work = replace(scene.work, slow=held)
    look(work, lambda: 1 // 0, [])
    held.let_go()
    with pytest.raises(ZeroDivisionError):
        look(work, lambda: 1 // 0, [])

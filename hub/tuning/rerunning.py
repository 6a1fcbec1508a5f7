"""Running a finished run again from its own record: the same base, data, recipe and seed, differences told first.

It leaves the new run's plan, quote and order to the usual way.
"""

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from finetune import spec as finetune_spec
from finetune.spec import BOUNDS, SpecError, check_recipe_value
from hub.actor import Actor
from hub.catalogue.tables import ModelVersion
from hub.compute.service import find_offer
from hub.compute.tables import OfferState
from hub.datasets.tables import DatasetVersion
from hub.errors import InvalidValueError
from hub.orders.tables import Quote
from hub.prices.rules import fee_fen
from hub.prices.service import default_price
from hub.prices.tables import Meter, PriceSubject
from hub.tuning.papers import build_manifest
from hub.tuning.service import create_run, find_run
from hub.tuning.tables import Run

CHOSEN_ANEW = "chosen by the plan"
_BASE_DIGESTS = ("weights_digest", "tokenizer_digest", "template_digest")


class Difference(TypedDict):
    """One thing that is not as it was in the run; null where there was or is none."""

    name: str
    then: int | float | str | None
    now: int | float | str | None


class Comparison(TypedDict):
    """What a rerun would differ in from the run's manifest, and the names of everything that was compared."""

    differences: list[Difference]
    compared: list[str]


class UnconfirmedError(InvalidValueError):
    """A rerun was asked for without having seen what it differs in."""

    code = "rerun_unconfirmed"


_Pairs = dict[str, tuple[Any, Any]]


def compare_rerun(session: Session, actor: Actor, run_id: str, *, home: Path, now: datetime) -> Comparison:
    """Compare a rerun with the run's manifest. No difference: the same bytes are to be expected on a CPU.

    Raises:
        NotFoundError: not this organisation's, or the run left no result.
    """
    run = find_run(session, actor, run_id)
    then = build_manifest(session, run, home)
    pairs = (
        _compare_inputs(session, run, then)
        | _compare_recipe(then["recipe"])
        | {"seed": (then["seed"], run.seed), "rate_factor": (then.get("rate_factor", 1.0), 1.0)}
        | {"code_digest": (then["code_digest"], _digest_trainer())}
        | {f"versions.{name}": (found, _read_version(name)) for name, found in then.get("versions", {}).items()}
        | _compare_price(session, run, now)
    )
    changed = [
        Difference(name=name, then=before, now=after) for name, (before, after) in pairs.items() if before != after
    ]
    return Comparison(differences=changed, compared=list(pairs))


def check_confirmed(run_id: str, *, confirm: bool) -> None:
    """Pass whoever says that the differences were seen. Raises: UnconfirmedError."""
    if not confirm:
        raise UnconfirmedError(
            f"confirm is false; look at the differences first (GET …/{run_id}/rerun), then send confirm: true.",
            f"confirm 为 false；请先查看差异（GET …/{run_id}/rerun），再发送 confirm: true。",
            field="confirm",
        )


def rerun(
    session: Session, actor: Actor, run_id: str, *, home: Path, now: datetime, terms: Mapping[str, Any] | None = None
) -> Run:
    """Enter a new run with every resolved value of an earlier one; its adapter becomes the model's next version.

    With `terms` it is the OpenAI client's job again, which orders itself on them.

    Raises:
        NotFoundError, DatasetNotReadyError: the data were deleted. And what `create_run` raises.
    """
    earlier = find_run(session, actor, run_id)
    manifest = build_manifest(session, earlier, home)
    return create_run(
        session,
        actor,
        base_version_id=earlier.base_version_id,
        dataset_version_id=earlier.dataset_version_id,
        model_name=earlier.model_name.rpartition("/")[2],
        recipe={name: value["value"] for name, value in manifest["recipe"].items()},
        seed=earlier.seed,
        deploy_when_done=earlier.deploy_when_done,
        cost_centre=earlier.cost_centre,
        asked=earlier.asked if terms is not None else None,
        terms=terms,
        rerun_of=earlier.id,
        now=now,
    )


def _compare_inputs(session: Session, run: Run, then: Mapping[str, Any]) -> _Pairs:
    base = session.get_one(ModelVersion, run.base_version_id)
    data = session.get_one(DatasetVersion, run.dataset_version_id)
    found = {f"base.{name}": (name, getattr(base, name)) for name in _BASE_DIGESTS}
    found |= {f"data.{name}": (name, getattr(data, name)) for name in ("train_digest", "valid_digest")}
    return {label: (then["digests"][name], today) for label, (name, today) in found.items() if name in then["digests"]}


def _compare_recipe(recipe: Mapping[str, Any]) -> _Pairs:
    """Every value of the manifest is set again; None where the trainer refuses it today."""
    kept = {f"recipe.{name}": (item["value"], _allow(name, item["value"])) for name, item in recipe.items()}
    return kept | {f"recipe.{name}": (None, CHOSEN_ANEW) for name in BOUNDS if name not in recipe}


def _allow(name: str, value: object) -> object:
    try:
        check_recipe_value(name, value)
    except SpecError:
        return None
    return value


def _compare_price(session: Session, run: Run, now: datetime) -> _Pairs:
    """The same device time and tokens on the same offer at today's list prices; vouchers are the quote's own matter."""
    quote = session.get(Quote, run.quote_id) if run.quote_id else None
    if quote is None:
        return {}
    offer = find_offer(session, quote.offer_id or "")
    tuning = default_price(session, PriceSubject.TUNING, now)
    prices = {line.meter: (line.amount_fen, line.per_units) for line in tuning.lines}
    prices[Meter.DEVICE_MS] = (offer.amount_fen, offer.per_units)
    list_fen = sum(fee_fen(line.quantity, *prices[line.meter]) for line in quote.lines)
    is_open = offer.is_open(now)
    return {
        "offer.state": (str(OfferState.OPEN), str(OfferState.OPEN if is_open else OfferState.WITHDRAWN)),
        "price.list_fen": (quote.list_fen, list_fen if is_open else None),
    }


def _digest_trainer() -> str:
    """The installed trainer's `code_digest` as its manifests carry it: sha256 over its files' sums, sorted by path."""
    files = sorted(Path(finetune_spec.__file__).parent.glob("*.py"))
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    return hashlib.sha256(sums.encode()).hexdigest()


def _read_version(name: str) -> str | None:
    if name == "python":
        return platform.python_version()
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None

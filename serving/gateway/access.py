"""Which models a key may see and call: visibility, key allow-list, filings, blocks, retirement.

Money and rates are left to `wallet` and `limits`, the choice of a replica to `routing`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from serving.contract import (
    BASE_ENGINE_NAME,
    Block,
    BlockScope,
    ModelTarget,
    SnapshotKey,
    SnapshotModel,
    SubjectKind,
    Visibility,
    engine_name,
)
from serving.gateway.clock import iso_time
from serving.gateway.errors import ErrorType, GatewayError
from serving.gateway.view import View

IsRouted = Callable[[SnapshotModel, ModelTarget], bool]
MODEL_NOT_FOUND = "model_not_found"
MODEL_NOT_DEPLOYED = "model_not_deployed"
_MAX_RESOLVED = 16_384
_NEVER = 2**63


@dataclass(frozen=True)
class Target:
    """The version chosen for one request and the name that engines know it by."""

    model: SnapshotModel
    version_id: str
    digest: str
    engine_name: str


@dataclass(frozen=True)
class Resolved:
    """What `name` stood for when `key` called it; by the same view it stands until `until_us`."""

    key: SnapshotKey
    target: Target
    until_us: int


def callable_models(view: View, key: SnapshotKey, *, now_us: int) -> list[SnapshotModel]:
    """Return the models that this key could call now, by public name."""
    allowed = [model for model in view.models.values() if _refusal(view, key, model, now_us) is None]
    return sorted(allowed, key=lambda model: model.public_name)


def resolve_target(
    view: View, key: SnapshotKey, name: str, *, session: str, now_us: int, is_routed: IsRouted | None = None
) -> Target:
    """Return the version that answers `name`: where several share it, always the same for a key and its session.

    A version that no engine offers at the moment leaves its callers to the others.
    Raises: GatewayError 404 when the caller cannot see it, 403 when it may not be called, with the reason.
    """
    known = view.resolved.get((key.key_id, name))
    if known is not None and known.key is key and now_us < known.until_us:
        return known.target
    model = view.models.get(name)
    if model is None:
        raise _not_found(name)
    refusal = _refusal(view, key, model, now_us)
    if refusal is not None:
        raise refusal
    targets = _open_targets(view, key, model, now_us)
    if len(targets) == 1:
        return _remember(view, key, draw_target(model, targets, ""), name, now_us)
    if is_routed is not None:
        targets = [target for target in targets if is_routed(model, target)] or targets
    return draw_target(model, targets, f"{key.key_id} {session}")


def draw_target(model: SnapshotModel, targets: list[ModelTarget], caller: str) -> Target:
    """Pick one of `targets` by weight, the same one for the same caller while the first one's weight grows."""
    target = targets[0]
    if len(targets) > 1:
        total = sum(target.weight for target in targets)
        name = f"{caller}\0{model.public_name}\0{targets[0].version_id}"
        point = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % total
        for target in targets:
            point -= target.weight
            if point < 0:
                break
    known = BASE_ENGINE_NAME if target.digest == model.base_digest else engine_name(target.digest)
    name = target.upstream_name or known
    return Target(model=model, version_id=target.version_id, digest=target.digest, engine_name=name)


def find_block(view: View, key: SnapshotKey, target: Target, *, now_us: int) -> Block | None:
    """Return the block that holds for a call already admitted, if any."""
    chosen = ModelTarget(version_id=target.version_id, digest=target.digest, weight=1)
    return _model_block(view, key, target.model, now_us) or _target_block(view, key, target.model, chosen, now_us)


def _remember(view: View, key: SnapshotKey, target: Target, name: str, now_us: int) -> Target:
    """Spare the next call of a model with one version the rules, until the first time that one of them names."""
    model = target.model
    filing_ends = None if model.filing is None else model.filing.valid_until
    ends = (model.retires_at, filing_ends, *(block.from_at for block in view.blocks))
    until_us = min((at for at in ends if at is not None and at > now_us), default=_NEVER)
    if len(view.resolved) >= _MAX_RESOLVED:
        view.resolved.clear()
    view.resolved[key.key_id, name] = Resolved(key, target, until_us)
    return target


def _refusal(view: View, key: SnapshotKey, model: SnapshotModel, now_us: int) -> GatewayError | None:
    if not _visible(model, key.organisation_id):
        return _not_found(model.public_name)
    if not _listed_on_key(key, model.public_name):
        message = (
            f"key {key.key_id} is limited to {', '.join(key.models or ())}; {model.public_name} is not on its list"
        )
        return GatewayError(403, "model_not_allowed", message, kind=ErrorType.PERMISSION, param="model")
    if model.retires_at is not None and model.retires_at <= now_us:
        instead = f"call {model.successor}" if model.successor else "choose another from /v1/models"
        message = f"{model.public_name} retired at {iso_time(model.retires_at)}; {instead} instead"
        return GatewayError(404, "model_retired", message, param="model")
    block = _model_block(view, key, model, now_us)
    if block is not None:
        return blocked_error(block)
    return _filing_refusal(key, model, now_us) or _targets_refusal(view, key, model, now_us)


def blocked_error(block: Block) -> GatewayError:
    """Return the refusal that names the block in both languages."""
    message = f"{block.message_en} / {block.message_zh}"
    return GatewayError(403, block.code, message, kind=ErrorType.PERMISSION, param="model")


def _visible(model: SnapshotModel, organisation_id: str) -> bool:
    if organisation_id == model.organisation_id or model.visibility is Visibility.PUBLIC:
        return True
    return model.visibility is Visibility.ACL and organisation_id in model.acl


def _listed_on_key(key: SnapshotKey, public_name: str) -> bool:
    return key.models is None or public_name in key.models or public_name.rpartition("@")[0] in key.models


def _filing_refusal(key: SnapshotKey, model: SnapshotModel, now_us: int) -> GatewayError | None:
    if key.organisation_id == model.organisation_id and model.owner_may_call:
        return None
    if model.filing is None:
        message = f"the base of {model.public_name} has no filing (备案); only its owner may call it"
        return GatewayError(403, "filing_missing", message, kind=ErrorType.PERMISSION, param="model")
    if model.filing.valid_until is not None and model.filing.valid_until <= now_us:
        message = f"filing {model.filing.number} of {model.public_name} has expired; only its owner may call it"
        return GatewayError(403, "filing_expired", message, kind=ErrorType.PERMISSION, param="model")
    return None


def _targets_refusal(view: View, key: SnapshotKey, model: SnapshotModel, now_us: int) -> GatewayError | None:
    if _open_targets(view, key, model, now_us):
        return None
    for target in model.targets:
        block = _target_block(view, key, model, target, now_us)
        if block is not None:
            return blocked_error(block)
    message = f"{model.public_name} has no version deployed; its owner can deploy one on the endpoints page"
    return GatewayError(404, MODEL_NOT_DEPLOYED, message, param="model")


def _open_targets(view: View, key: SnapshotKey, model: SnapshotModel, now_us: int) -> list[ModelTarget]:
    return [
        target
        for target in model.targets
        if target.weight > 0 and _target_block(view, key, model, target, now_us) is None
    ]


def _model_block(view: View, key: SnapshotKey, model: SnapshotModel, now_us: int) -> Block | None:
    if not view.blocks:
        return None
    subjects = (
        (SubjectKind.BASE, model.base_digest),
        (SubjectKind.MODEL, model.public_name),
        (SubjectKind.MODEL, model.version_id),
        (SubjectKind.ORGANISATION, model.organisation_id),
        (SubjectKind.ORGANISATION, key.organisation_id),
    )
    return _first_block(view, key, model, subjects, now_us)


def _target_block(view: View, key: SnapshotKey, model: SnapshotModel, target: ModelTarget, now_us: int) -> Block | None:
    if not view.blocks:
        return None
    subjects = ((SubjectKind.ADAPTER, target.digest), (SubjectKind.MODEL, target.version_id))
    return _first_block(view, key, model, subjects, now_us)


def _first_block(
    view: View, key: SnapshotKey, model: SnapshotModel, subjects: tuple[tuple[SubjectKind, str], ...], now_us: int
) -> Block | None:
    for subject in subjects:
        for block in view.blocks_of.get(subject, ()):
            if block.from_at <= now_us and _reaches(block, key, model):
                return block
    return None


def _reaches(block: Block, key: SnapshotKey, model: SnapshotModel) -> bool:
    if block.scope is BlockScope.ALL:
        return True
    if block.subject_kind is SubjectKind.ORGANISATION and block.subject == key.organisation_id:
        return True
    return key.organisation_id != model.organisation_id


def _not_found(name: str) -> GatewayError:
    message = f"the model {name!r:.120} does not exist or you have no access to it; GET /v1/models lists yours"
    return GatewayError(404, MODEL_NOT_FOUND, message, param="model")

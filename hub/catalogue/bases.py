"""Brings a local Hugging Face folder into the catalogue as a base: check, copy, digests, then rows.

It leaves the checks to `registry.base_check` and the filing to `filings`. `prepare_base` is slow (it reads every
byte) and runs outside any transaction; `import_base` only writes rows.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.catalogue.models import find_or_create_model
from hub.catalogue.registration import add_version
from hub.catalogue.rules import ModelTexts
from hub.catalogue.tables import ModelKind, ModelVersion, VersionState
from hub.errors import InvalidValueError
from hub.filings.refusals import translate_refusals
from registry.artifacts import Artifact
from registry.base_check import check_base
from registry.base_facts import BaseFacts
from registry.identity import template_digest, tokenizer_digest, weights_digest
from registry.lineage import Lineage
from registry.report import Report
from registry.store import FolderStore
from serving.contract import Visibility


class BaseRefusedError(InvalidValueError):
    """The folder failed the gate; `report` holds every check."""

    code = "base_refused"


@dataclass(frozen=True, kw_only=True)
class PreparedBase:
    """A folder that passed the gate and lies in the store: what the rows need to know of it."""

    facts: BaseFacts
    report: Report
    artifact: Artifact
    artifact_uri: str
    weights_digest: str
    tokenizer_digest: str
    template_digest: str


def prepare_base(store: FolderStore, folder: Path) -> PreparedBase:
    """Check a folder, copy it into the store and compute its digests.

    Raises:
        BaseRefusedError: not a folder, or a check refused it. ArtifactRefusedError: the store could not take it.
    """
    if not folder.is_dir():
        raise BaseRefusedError(
            f"'{folder.name}' is not a folder on this machine. Give the absolute path of a Hugging Face folder.",
            f"“{folder.name}”不是本机文件夹。请给出 Hugging Face 模型文件夹的绝对路径。",
            field="path",
        )
    checked = check_base(folder)
    if not checked.report.passed or checked.facts is None:
        raise _refuse(folder, checked.report)
    with translate_refusals():
        artifact = store.add_folder(folder, checked.import_names)
        stored = store.path(artifact.digest)
        # Digests are of the stored bytes, not of the folder, which may change meanwhile.
        return PreparedBase(
            facts=checked.facts,
            report=checked.report,
            artifact=artifact,
            artifact_uri=store.uri(artifact.digest),
            weights_digest=weights_digest(stored),
            tokenizer_digest=tokenizer_digest(stored),
            template_digest=template_digest(stored),
        )


def import_base(
    session: Session,
    actor: Actor,
    *,
    name: str,
    prepared: PreparedBase,
    texts: ModelTexts,
    now: datetime,
    kind: ModelKind = ModelKind.BASE,
) -> ModelVersion:
    """Register a prepared folder as a version of `slug/name`: listed for an operator, private for anybody else.

    The same folder under the same name is the same version again.

    Raises:
        ForbiddenError: an auditor asks. BadModelNameError, ConflictError: the name cannot be used.
    """
    actor.require(Role.OPERATOR, Role.INTEGRATOR, Role.FACTORY, Role.DEVELOPER, Role.PROVIDER)
    listed = actor.role is Role.OPERATOR
    model = find_or_create_model(
        session,
        organisation_id=actor.organisation_id,
        name=name,
        kind=kind,
        texts=texts,
        base_model_id=None,
        visibility=Visibility.PUBLIC if listed else Visibility.PRIVATE,
        created_by=actor.user_id,
        now=now,
    )
    lineage = Lineage(base_weights_digest=prepared.weights_digest, artifact_digest=prepared.artifact.digest)
    return add_version(
        session,
        model,
        state=VersionState.LISTED if listed else VersionState.PRIVATE,
        created_by=actor.user_id,
        now=now,
        artifact_digest=prepared.artifact.digest,
        artifact_uri=prepared.artifact_uri,
        weights_digest=prepared.weights_digest,
        tokenizer_digest=prepared.tokenizer_digest,
        template_digest=prepared.template_digest,
        size_bytes=prepared.artifact.size_bytes,
        parameters=prepared.facts.parameters,
        facts=asdict(prepared.facts),
        metrics={},
        lineage=lineage.as_dict(),
    )


def _refuse(folder: Path, report: Report) -> BaseRefusedError:
    refusals = report.refusals
    first_en = "; ".join(f"{check.message_en}. {check.fix_en}" for check in refusals[:3])
    first_zh = "；".join(f"{check.message_zh}。{check.fix_zh}" for check in refusals[:3])
    return BaseRefusedError(
        f"'{folder.name}' cannot be imported, {len(refusals)} checks failed: {first_en}",
        f"“{folder.name}”不能导入，{len(refusals)} 项检查未通过：{first_zh}",
        report=report.as_dict(),
    )

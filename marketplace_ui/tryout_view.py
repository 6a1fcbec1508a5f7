"""The evaluated checkpoints of a run and the one that is tried out beside its base, as the run's page shows them.

It leaves loading to `hub.tuning.tryouts` and the answers to `marketplace_ui.pages.tryout`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flask import request
from sqlalchemy.orm import Session

from hub.catalogue.tables import ModelVersion
from hub.deployments.service import find_open_deployment
from hub.deployments.tables import DeploymentState
from hub.filings.service import Standing, standing_of
from hub.tuning.tables import Run
from hub.tuning.tryouts import Tryout, list_tryouts
from hub.web import context
from marketplace_ui.layout import translate
from marketplace_ui.pages.model import Pane


@dataclass(frozen=True)
class TryoutView:
    """All checkpoints, the chosen one (None: none was asked for) and what the answer's label must tell."""

    rows: Sequence[Tryout]
    chosen: Tryout | None
    base_name: str
    base_ready: bool
    standing: Standing

    @property
    def panes(self) -> list[Pane]:
        """Base and checkpoint, side by side."""
        if self.chosen is None:
            return []
        one = self.chosen.checkpoint
        title = translate(f"检查点，第 {one.step} 步", f"Checkpoint of step {one.step}")
        return [Pane(self.base_name, translate("基座", "Base"), self.ready), Pane(one.name, title, self.ready)]

    @property
    def waiting(self) -> bool:
        """Whether the chosen checkpoint was asked for and does not answer yet."""
        return self.chosen is not None and not self.ready

    @property
    def ready(self) -> bool:
        """Whether the chosen checkpoint and its base answer now."""
        return self.chosen is not None and self.chosen.state == DeploymentState.READY and self.base_ready


def view_tryouts(session: Session, run: Run, home: Path, *, mine: bool) -> TryoutView | None:
    """Return what the page shows; None to others than the owner, and before there is a checkpoint."""
    rows = list_tryouts(session, run, home) if mine else []
    if not rows:
        return None
    base = session.get_one(ModelVersion, run.base_version_id)
    found = find_open_deployment(session, base.id)
    return TryoutView(
        rows=rows,
        chosen=_choose(rows, request.values.get("step", "")),
        base_name=run.base_public_name,
        base_ready=found is not None and found.state is DeploymentState.READY,
        standing=standing_of(session, base.weights_digest, context().clock()),
    )


def _choose(rows: Sequence[Tryout], step: str) -> Tryout | None:
    """Return the checkpoint that the address names if it is tried out, else the newest that is."""
    opened = [row for row in rows if row.state is not None]
    named = [row for row in opened if str(row.checkpoint.step) == step]
    found = named or opened
    return found[-1] if found else None

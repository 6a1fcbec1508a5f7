"""Mirrors runs and versions to the private MLflow server; the only file of the project that imports mlflow.

It leaves the truth to the hub's database, and never loads a model: artefacts go in as plain files and nothing comes out
but ids. Callers pass figures and digests only, no rows of anybody's data.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import RegistryError
from registry.mirror_records import MetricPoint, MirroredRun, MirroredVersion, check_registered_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_TAG = "guanmo.run_id"
VERSION_TAG = "guanmo.version_id"
# MLflow's own limits of one log_batch call.
_METRICS_PER_BATCH = 1000
_PARAMS_PER_BATCH = 100
_MAX_PARAM_CHARS = 6000


class MirrorUnavailableError(RegistryError):
    """MLflow did not answer as expected; the hub's rows are the truth and the mirror can be repeated."""

    code = "mlflow_unavailable"


class Mirror:
    """A client of one MLflow server.

    MLflow takes credentials from the environment only: one Mirror for each process.
    """

    def __init__(self, tracking_uri: str, username: str, password: str) -> None:
        """Keep the address and hand the credentials to MLflow's client; no call is made."""
        os.environ.update(
            MLFLOW_TRACKING_USERNAME=username,
            MLFLOW_TRACKING_PASSWORD=password,
            MLFLOW_DISABLE_TELEMETRY="true",
            MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false",
            MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
            MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
            MLFLOW_HTTP_REQUEST_MAX_RETRIES="1",
            MLFLOW_HTTP_REQUEST_TIMEOUT="30",
        )
        self.tracking_uri = tracking_uri
        self._client: MlflowClient | None = None

    def record_run(
        self,
        experiment: str,
        run_name: str,
        *,
        params: Mapping[str, str],
        metrics: Sequence[MetricPoint],
        tags: Mapping[str, str],
        artifact_dir: Path | None = None,
    ) -> MirroredRun:
        """Write one finished run and return its ids.

        A finished run with the same `guanmo.run_id` tag is returned as it is; a run that an earlier call left
        unfinished is written again from its start.
        Raises: MirrorUnavailableError; KeyError without a `guanmo.run_id` tag.
        """
        key = tags[RUN_TAG]
        with self._talk() as client:
            experiment_id = _ensure_experiment(client, experiment)
            found = client.search_runs([experiment_id], f"tags.`{RUN_TAG}` = '{_quote(key)}'", max_results=1)
            if found and found[0].info.status == "FINISHED":
                return MirroredRun(experiment_id, found[0].info.run_id)
            run = found[0] if found else client.create_run(experiment_id, run_name=run_name, tags=dict(tags))
            run_id = str(run.info.run_id)
            _log_in_batches(client, run_id, params, metrics)
            if artifact_dir is not None:
                client.log_artifacts(run_id, str(artifact_dir))
            client.set_terminated(run_id, "FINISHED")
            return MirroredRun(experiment_id, run_id)

    def record_version(
        self,
        name: str,
        artifact: Path,
        *,
        source_run: MirroredRun,
        tags: Mapping[str, str],
        alias: str | None = None,
    ) -> MirroredVersion:
        """Store the folder as a model, register it as `name` (`org.name`), and return the version.

        Repeated with the same `guanmo.version_id` tag it returns the same version. The alias only ever moves forward
        here, so that a late repetition undoes nothing; `set_alias` moves it anywhere.
        Raises: MirrorUnavailableError, MirrorNameRefusedError; KeyError without a `guanmo.version_id` tag.
        """
        check_registered_name(name)
        key = tags[VERSION_TAG]
        with self._talk() as client:
            _ensure_registered_model(client, name)
            version = _find_version(client, name, key)
            if version is None:
                model_id = _store_model(client, name, artifact, source_run=source_run, key=key)
                created = client.create_model_version(
                    name,
                    f"models:/{model_id}",
                    run_id=source_run.run_id,
                    model_id=model_id,
                    tags={**tags, "guanmo.model_id": model_id},
                )
                version = MirroredVersion(name, int(created.version), model_id, source_run.run_id)
            if alias is not None and _alias_version(client, name, alias) < version.version:
                client.set_registered_model_alias(name, alias, str(version.version))
            return version

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point `alias` of `name` at `version`, forward or back. Raises: MirrorUnavailableError."""
        with self._talk() as client:
            client.set_registered_model_alias(check_registered_name(name), alias, str(version))

    def find_version(self, name: str, version_id: str) -> MirroredVersion | None:
        """Return the mirrored version that carries our `version_id`, or None. Raises: MirrorUnavailableError."""
        with self._talk() as client:
            return _find_version(client, check_registered_name(name), version_id)

    @contextmanager
    def _talk(self) -> Iterator["MlflowClient"]:
        import mlflow
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        self._client = self._client or mlflow.MlflowClient(
            tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri
        )
        try:
            yield self._client
        except (MlflowException, RequestException) as error:
            reason = str(error).splitlines()[0][:300]
            raise MirrorUnavailableError(
                f"MLflow at {self.tracking_uri} refused or did not answer: {reason}. See its log and repeat the call.",
                f"MLflow（{self.tracking_uri}）拒绝或没有响应：{reason}。请查看其日志后重试。",
            ) from error


def _ensure_experiment(client: "MlflowClient", name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException as error:
        # Two first runs at once: the other one has made it.
        found = client.get_experiment_by_name(name) if error.error_code == "RESOURCE_ALREADY_EXISTS" else None
        if found is None:
            raise
        return str(found.experiment_id)


def _ensure_registered_model(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _find_version(client: "MlflowClient", name: str, key: str) -> MirroredVersion | None:
    query = f"name = '{name}' and tags.`{VERSION_TAG}` = '{_quote(key)}'"
    found = client.search_model_versions(query, max_results=1)
    if not found:
        return None
    model_id = str(found[0].tags["guanmo.model_id"])
    return MirroredVersion(name, int(found[0].version), model_id, str(found[0].run_id))


def _store_model(client: "MlflowClient", name: str, artifact: Path, *, source_run: MirroredRun, key: str) -> str:
    # A model without a version is what a killed call left: its files may be incomplete, so it is made anew.
    # Names of logged models, unlike those of registered ones, cannot hold a dot either.
    model = client.create_logged_model(
        source_run.experiment_id, name=name.replace(".", "-"), source_run_id=source_run.run_id, tags={VERSION_TAG: key}
    )
    model_id = str(model.model_id)
    client.log_model_artifacts(model_id, str(artifact))
    client.finalize_logged_model(model_id, "READY")
    return model_id


def _alias_version(client: "MlflowClient", name: str, alias: str) -> int:
    aliases: Mapping[str, Any] = client.get_registered_model(name).aliases
    return int(aliases.get(alias, 0))


def _log_in_batches(
    client: "MlflowClient", run_id: str, params: Mapping[str, str], metrics: Sequence[MetricPoint]
) -> None:
    from mlflow.entities import Metric, Param

    texts = [Param(key, value[:_MAX_PARAM_CHARS]) for key, value in params.items()]
    for start in range(0, len(texts), _PARAMS_PER_BATCH):
        client.log_batch(run_id, params=texts[start : start + _PARAMS_PER_BATCH])
    points = [Metric(point.name, point.value, point.at_ms, point.step) for point in metrics]
    for start in range(0, len(points), _METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=points[start : start + _METRICS_PER_BATCH])


def _quote(value: str) -> str:
    return value.replace("'", "''")

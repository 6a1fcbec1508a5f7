"""OpenAI's files and fine-tuning jobs by the stock SDK: the whole flow, its limits, its errors."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob
from sqlalchemy import func, select

from hub.actor import Role
from hub.clock import read_clock
from hub.datasets.service import locate_checked
from hub.datasets.tables import DatasetVersion
from hub.deployments.snapshot import build_snapshot
from hub.filings.service import withdraw_filing
from hub.jobs.loop import JobLoop, Kind
from hub.jobs.tables import Job, JobState
from hub.jobs.work import Verdict, Work
from hub.orders.tables import Order, OrderState, Quote
from hub.organisations.tables import User
from hub.tuning.endings import fail_orphaned_runs
from hub.tuning.kinds import ORDER_KIND
from hub.tuning.openai_ids import read_job
from hub.tuning.proving import queue_proofs
from hub.tuning.tables import Run
from tests.hub.runs.openai_client import chat_rows, make_client, report_ready
from tests.hub.runs.scene import Scene, run_until
from tests.hub.runs.twin_trainer import TOKENS_PER_STEP

OVER = {"succeeded", "failed", "cancelled"}


def upload(client: openai.OpenAI, content: bytes | None = None, name: str = "orders.jsonl") -> str:
    return client.files.create(file=(name, content or chat_rows()), purpose="fine-tune").id


def create(client: openai.OpenAI, scene: Scene, **fields: Any) -> FineTuningJob:
    given = {"model": scene.base, "training_file": fields.pop("training_file", None) or upload(client), **fields}
    return client.fine_tuning.jobs.create(**given)


def supervised(**hyperparameters: Any) -> dict[str, Any]:
    return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}


def poll(client: openai.OpenAI, job_id: str, worker: JobLoop, *words: str) -> FineTuningJob:
    run_until(worker, lambda: client.fine_tuning.jobs.retrieve(job_id).status in (words or tuple(OVER)))
    return client.fine_tuning.jobs.retrieve(job_id)


def read_run(scene: Scene, job_id: str) -> dict[str, Any]:
    return scene.read_run(read_job(job_id))


def test_the_stock_sdk_does_the_whole_flow(scene: Scene) -> None:
    client, worker = make_client(scene), scene.make_worker()
    file = client.files.create(file=("orders.jsonl", chat_rows()), purpose="fine-tune")
    assert (file.object, file.purpose, file.status, file.bytes) == ("file", "fine-tune", "uploaded", len(chat_rows()))
    job = client.fine_tuning.jobs.create(
        model=scene.base,
        training_file=file.id,
        method=supervised(n_epochs=4),  # type: ignore[arg-type]
        suffix="Work Orders",
        seed=7,
        metadata={"line": "3", "guanmo_max_fen": "5000"},
    )
    assert (job.object, job.status, job.seed, job.fine_tuned_model) == ("fine_tuning.job", "validating_files", 7, None)
    assert job.training_file == file.id
    assert job.hyperparameters.n_epochs == 4
    assert job.hyperparameters.batch_size == "auto"
    run_until(worker, lambda: read_run(scene, job.id)["state"] == "succeeded")
    assert client.fine_tuning.jobs.retrieve(job.id).status == "running"  # its name does not answer yet
    run_until(worker, lambda: count_wanted(scene) > 0)
    report_ready(scene)
    with scene.sessions.write() as session:
        assert queue_proofs(session, now=read_clock()) == 1
    done = poll(client, job.id, worker)
    assert done.status == "succeeded"
    assert done.fine_tuned_model == "factory-co/work-orders@1"
    assert done.trained_tokens == 4 * TOKENS_PER_STEP
    assert done.metadata == {"line": "3", "guanmo_max_fen": "5000"}
    assert done.method is not None
    assert done.method.type == "supervised"
    with scene.sessions.read() as session:
        served = {model.public_name for model in build_snapshot(session, read_clock()).models}
        order = session.scalars(select(Order)).one()
        assert len(session.scalars(select(Quote)).all()) == 1  # the other offer's quote was not kept
    assert {"factory-co/work-orders@1", "factory-co/work-orders"} <= served
    assert order.state is OrderState.SETTLED
    assert read_run(scene, job.id)["offer_id"] == scene.offers["bay"]  # half the price of the other
    check_lists(client, done, file.id)


METRICS_HEADER = "step,train_loss,valid_loss,valid_mean_token_accuracy,learning_rate,tokens"


def check_lists(client: openai.OpenAI, job: FineTuningJob, file_id: str) -> None:
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=3))  # the SDK turns the pages
    assert any(event.message == "The job has successfully completed" for event in events[:2])
    assert events[-1].message == "Created fine-tuning job"
    assert len({event.id for event in events}) == len(events) > 10
    metrics = [event for event in events if event.type == "metrics"]
    assert [event.data["step"] for event in reversed(metrics)] == [1, 2, 3, 4]  # type: ignore[index]
    (checkpoint,) = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert checkpoint.fine_tuned_model_checkpoint == job.fine_tuned_model
    assert checkpoint.step_number == 4
    content = client.files.content(job.result_files[0]).text
    assert content.splitlines()[:2] == [METRICS_HEADER, "1,1.0,,,,100"]
    assert [item.id for item in client.fine_tuning.jobs.list()] == [job.id]
    assert {item.purpose for item in client.files.list()} == {"fine-tune", "fine-tune-results"}
    assert client.files.content(file_id).content == chat_rows()
    assert client.files.retrieve(file_id).status == "processed"
    assert client.files.delete(file_id).deleted is True
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file_id)


def count_wanted(scene: Scene) -> int:
    answer = scene.call("GET", "/api/v1/deployments", "factory").json
    return len(answer["deployments"])  # type: ignore[index]


def test_a_quote_above_the_limit_moves_no_money(scene: Scene) -> None:
    client, worker = make_client(scene), scene.make_worker()
    job = create(client, scene, metadata={"guanmo_max_fen": "3"}, hyperparameters={"n_epochs": 4})
    done = poll(client, job.id, worker)
    assert done.status == "failed"
    assert done.error is not None
    assert (done.error.code, done.error.param) == ("quote_above_limit", "metadata.guanmo_max_fen")
    assert "needs 20 fen" in done.error.message
    with scene.sessions.read() as session:
        assert session.scalar(select(func.count()).select_from(Order)) == 0


def test_a_keys_budget_bounds_the_limit_and_its_models_the_base(scene: Scene) -> None:
    worker = scene.make_worker()
    poor = make_client(scene, budget_fen=3)
    job = create(poor, scene, metadata={"guanmo_max_fen": "5000"}, hyperparameters={"n_epochs": 4})
    error = poll(poor, job.id, worker).error
    assert error is not None
    assert error.code == "quote_above_limit"
    narrow = make_client(scene, models=["factory-co/other"])
    with pytest.raises(openai.PermissionDeniedError) as refused:
        create(narrow, scene)
    assert refused.value.param == "model"


def test_an_offer_may_be_named(scene: Scene) -> None:
    client, worker = make_client(scene), scene.make_worker()
    job = create(client, scene, metadata={"guanmo_offer": scene.offers["city"], "guanmo_deploy": "false"})
    assert poll(client, job.id, worker).status == "succeeded"
    assert read_run(scene, job.id)["offer_id"] == scene.offers["city"]
    missing = create(client, scene, metadata={"guanmo_offer": "off_none"})
    error = poll(client, missing.id, worker).error
    assert error is not None
    assert error.code == "not_found"


def test_without_money_the_job_fails_and_says_how_much_is_missing(scene: Scene) -> None:
    client, worker = make_client(scene, "rival"), scene.make_worker()
    error = poll(client, create(client, scene).id, worker).error
    assert error is not None
    assert error.code == "insufficient_funds"
    assert "deposit" in error.message


def test_a_job_whose_ordering_was_given_up_fails_with_its_reason_at_once(scene: Scene) -> None:
    def broken(_work: Work, _claim: Any) -> Verdict:
        raise OSError("no space left on device")

    client, worker = make_client(scene), scene.make_worker(run_order=Kind(broken, "light"))
    job = create(client, scene)

    def read_order_job() -> Job | None:
        with scene.sessions.read() as session:
            return session.scalar(select(Job).where(Job.kind == ORDER_KIND))

    run_until(worker, lambda: (found := read_order_job()) is not None and found.failures == 1)
    with scene.sessions.write() as session:
        assert fail_orphaned_runs(session, now=read_clock()) == 0, "it is tried again"
        waiting = session.scalars(select(Job).where(Job.kind == ORDER_KIND)).one()
        waiting.failures, waiting.run_after = waiting.max_failures - 1, read_clock()
    run_until(worker, lambda: (found := read_order_job()) is not None and found.state is JobState.FAILED)
    assert client.fine_tuning.jobs.retrieve(job.id).status == "validating_files"
    with scene.sessions.write() as session:
        assert fail_orphaned_runs(session, now=read_clock()) == 1
        assert fail_orphaned_runs(session, now=read_clock()) == 0
    done = client.fine_tuning.jobs.retrieve(job.id)
    assert done.status == "failed"
    assert done.error is not None
    assert done.error.code == "ordering_failed"
    assert "no money was held; create the job again" in done.error.message
    assert done.finished_at is not None
    assert read_run(scene, job.id)["fault"] == "platform"
    with scene.sessions.read() as session:
        assert session.scalar(select(func.count()).select_from(Order)) == 0


def test_rows_with_errors_fail_the_job_by_code_and_row_without_their_text(scene: Scene) -> None:
    client, worker = make_client(scene), scene.make_worker()
    lines = chat_rows().splitlines()
    lines[7] = b'{"messages": [{"role": "user", "content": "secret text"}]}'
    file_id = upload(client, b"\n".join(lines) + b"\n")
    done = poll(client, create(client, scene, training_file=file_id).id, worker)
    assert done.error is not None
    assert (done.error.code, done.error.param) == ("data_invalid", "training_file")
    assert "8" in done.error.message
    assert "secret text" not in done.error.message
    file = client.files.retrieve(file_id)
    assert file.status == "error"
    assert file.status_details


def test_pause_resume_and_cancel_take_effect_within_a_step(scene: Scene) -> None:
    client, worker = make_client(scene), scene.make_worker()
    job = create(client, scene, hyperparameters={"n_epochs": 40}, metadata={"guanmo_deploy": "false"})
    run_until(worker, lambda: read_run(scene, job.id)["state"] == "running")
    client.fine_tuning.jobs.pause(job.id)
    run_until(worker, lambda: read_run(scene, job.id)["state"] == "paused")
    assert client.fine_tuning.jobs.retrieve(job.id).status == "running"
    assert client.fine_tuning.jobs.retrieve(job.id).model_extra["guanmo"]["paused"] is True  # type: ignore[index]
    assert scene.work.launch.list_mine() == []
    client.fine_tuning.jobs.resume(job.id)
    run_until(worker, lambda: read_run(scene, job.id)["attempt"] == 2)
    assert poll(client, job.id, worker).status == "succeeded"
    done = read_run(scene, job.id)
    assert [row["reason_code"] for row in done["attempts"]] == ["paused", "done"]
    assert done["trained_tokens"] == 40 * TOKENS_PER_STEP
    other = create(client, scene, hyperparameters={"n_epochs": 50})
    assert client.fine_tuning.jobs.cancel(other.id).status == "cancelled"  # nothing was ordered yet
    with pytest.raises(openai.ConflictError) as refused:
        client.fine_tuning.jobs.pause(other.id)
    assert refused.value.code == "run_state"


def test_the_same_idempotency_key_is_one_job(scene_on_both: Scene) -> None:
    scene = scene_on_both
    client = make_client(scene)
    file_id = upload(client)

    def submit(_: int) -> str:
        headers = {"Idempotency-Key": "once"}
        return create(client, scene, training_file=file_id, seed=1, extra_headers=headers).id

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(submit, range(16)))
    assert len(found) == 1
    with scene.sessions.read() as session:
        assert session.scalar(select(func.count()).select_from(Run)) == 1
    with pytest.raises(openai.ConflictError) as refused:
        create(client, scene, training_file=file_id, seed=2, extra_headers={"Idempotency-Key": "once"})
    assert refused.value.code == "idempotency_conflict"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs"),
        ({"method": supervised(n_epochs=0)}, "method.supervised.hyperparameters.n_epochs"),
        ({"method": supervised(batch_size="big")}, "method.supervised.hyperparameters.batch_size"),
        ({"method": {"type": "dpo"}}, "method.type"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"suffix": "!!!"}, "suffix"),
        ({"metadata": {"guanmo_max_fen": "ten"}}, "metadata.guanmo_max_fen"),
        ({"metadata": {"guanmo_unknown": "1"}}, "metadata.guanmo_unknown"),
        ({"integrations": [{"type": "wandb"}]}, "integrations"),
        ({"extra_body": {"surprise": 1}}, "surprise"),
    ],
)
def test_values_that_are_not_offered_are_refused_by_name(scene: Scene, fields: dict[str, Any], param: str) -> None:
    client = make_client(scene)
    with pytest.raises(openai.BadRequestError) as refused:
        create(client, scene, training_file="file-" + "0" * 32, **fields)
    assert refused.value.type == "invalid_request_error"
    assert refused.value.param == param
    assert param.rpartition(".")[2] in refused.value.message


def test_what_our_rules_refuse_is_told_by_the_clients_own_parameter(scene: Scene) -> None:
    client, worker = make_client(scene), scene.make_worker()
    sound = upload(client)
    bad = upload(client, chat_rows() + b'{"messages": [{"role": "user", "content": "no answer"}]}\n')
    run_until(worker, lambda: client.files.retrieve(bad).status == "error")

    def read_refusal(**fields: Any) -> tuple[int, str | None, str | None]:
        with pytest.raises(openai.APIStatusError) as refused:
            create(client, scene, **{"training_file": sound, **fields})
        return refused.value.status_code, refused.value.code, refused.value.param

    assert read_refusal(training_file=bad) == (409, "dataset_not_ready", "training_file")
    assert read_refusal(suffix="latest") == (400, "bad_model_name", "suffix")
    filing = scene.add_filing()
    with scene.sessions.write() as session:
        withdraw_filing(session, scene.actors["operator"], filing.id, reason="it was wrong", now=read_clock())
    assert read_refusal() == (409, "model_not_fine_tunable", "model")


@pytest.mark.parametrize("role", [Role.PROVIDER, Role.AUDITOR])
def test_a_key_whose_maker_brings_no_data_stores_nothing(scene: Scene, role: Role) -> None:
    client = make_client(scene)
    with scene.sessions.write() as session:
        session.get_one(User, scene.actors["factory"].user_id).role = role
    with pytest.raises(openai.PermissionDeniedError):
        upload(client)
    assert list((scene.home / "datasets").rglob("*")) == []


def test_strangers_and_missing_things(scene: Scene) -> None:
    client = make_client(scene)
    job = create(client, scene)
    with pytest.raises(openai.NotFoundError) as refused:
        make_client(scene, "rival").fine_tuning.jobs.retrieve(job.id)
    assert refused.value.code == "not_found"
    with pytest.raises(openai.NotFoundError) as refused:
        make_client(scene, "rival").files.content(job.training_file)
    for call, param in (
        (lambda: create(client, scene, training_file="file-1"), "training_file"),
        (lambda: create(client, scene, training_file=job.training_file, validation_file="file-1"), "validation_file"),
        (lambda: client.fine_tuning.jobs.create(model="a/b", training_file=job.training_file), "model"),
        (lambda: client.fine_tuning.jobs.list_events(job.id, after="ftevent-1"), "after"),
    ):
        with pytest.raises(openai.NotFoundError) as refused:
            call()
        assert refused.value.param == param
    with pytest.raises(openai.AuthenticationError) as denied:
        client.with_options(api_key=scene.token_of("factory")).fine_tuning.jobs.list()
    assert denied.value.code == "invalid_api_key"
    with pytest.raises(openai.PermissionDeniedError):
        make_client(scene, ip_ranges=["10.0.0.0/8"]).files.list()


def test_jobs_are_filtered_by_metadata_and_paged(scene: Scene) -> None:
    client = make_client(scene)
    file_id = upload(client)
    made = [create(client, scene, training_file=file_id, metadata={"line": str(number % 2)}) for number in range(5)]
    assert [job.id for job in client.fine_tuning.jobs.list(limit=2)] == [job.id for job in reversed(made)]
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={"line": "1"})] == [made[3].id, made[1].id]


def test_an_organisation_has_so_many_unfinished_runs_at_most(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.tuning.service.MAX_OPEN_RUNS", 2)
    client = make_client(scene)
    file_id = upload(client)
    first = create(client, scene, training_file=file_id)
    create(client, scene, training_file=file_id)
    with pytest.raises(openai.RateLimitError) as refused:
        create(client, scene, training_file=file_id)
    assert refused.value.code == "run_quota"
    client.fine_tuning.jobs.cancel(first.id)
    create(client, scene, training_file=file_id)


def test_only_fine_tune_uploads_are_taken(scene: Scene) -> None:
    client = make_client(scene)
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=("a.jsonl", chat_rows()), purpose="batch")
    assert refused.value.param == "purpose"
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=("a.txt", chat_rows()), purpose="fine-tune")
    assert refused.value.param == "file"


def rows_of(first: int, count: int) -> bytes:
    rows = [
        {"messages": [{"role": "user", "content": f"Valve {at}"}, {"role": "assistant", "content": f"Seal {at % 9}"}]}
        for at in range(first, first + count)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_a_validation_file_is_held_out_whole_and_goes_with_its_deletion(scene: Scene) -> None:
    client, worker = make_client(scene), scene.make_worker()
    training = upload(client, rows_of(0, 60))
    held = upload(client, rows_of(100, 25), name="held.jsonl")
    only_trained = {"metadata": {"guanmo_deploy": "false"}}
    job = create(client, scene, training_file=training, validation_file=held, **only_trained)
    assert job.validation_file == held
    create(client, scene, training_file=training, validation_file=held, **only_trained)
    done = poll(client, job.id, worker, "succeeded")
    assert (done.validation_file, done.training_file) == (held, training)
    with scene.sessions.read() as session:
        versions = session.scalars(select(DatasetVersion).where(DatasetVersion.held_version_id.is_not(None))).all()
    (version,) = versions  # the second job reads the same one
    folder = locate_checked(scene.home, version)
    assert (version.train_rows, version.valid_rows) == (60, 25)
    assert "Valve 100" in (folder / "valid.jsonl").read_text()
    assert "Valve 100" not in (folder / "train.jsonl").read_text()
    plain = create(client, scene, training_file=training, **only_trained)
    assert plain.validation_file is None
    for listed in client.fine_tuning.jobs.list():
        client.fine_tuning.jobs.cancel(listed.id)
    run_until(worker, lambda: all(found.status in OVER for found in client.fine_tuning.jobs.list()))
    assert client.files.delete(held).deleted
    assert not folder.exists()
    assert client.files.retrieve(training).status == "processed"


def test_a_validation_file_must_be_another_one_of_the_same_format(scene: Scene) -> None:
    client = make_client(scene)
    training = upload(client, rows_of(0, 60))
    for other in (training, upload(client, b"question,answer\na,b\n", name="held.csv")):
        with pytest.raises(openai.BadRequestError) as refused:
            create(client, scene, training_file=training, validation_file=other)
        assert refused.value.param == "validation_file"

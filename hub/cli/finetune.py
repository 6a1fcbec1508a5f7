"""`guanmo finetune`: fine-tuning jobs in the terminal, over the same address and key as any OpenAI client.

It leaves everything about a job to the service; nothing here reads this machine's database.
"""

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hub.cli.calling import Yes, confirm
from hub.cli.showing import choose, yuan
from hub.errors import GuanmoError

finetune = typer.Typer(no_args_is_help=True)
DEFAULT_URL = "http://127.0.0.1:8080/v1"
POLL_S = 1.0
_OVER = ("succeeded", "failed", "cancelled")
_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 60
_LOG_LINES = 8
Key = Annotated[str, typer.Option("--key", envvar="OPENAI_API_KEY", help="API key gm_…", show_default=False)]
Url = Annotated[str, typer.Option("--url", envvar="OPENAI_BASE_URL", help="address of the gateway, ending in /v1")]
JobId = Annotated[str, typer.Argument(help="job ftjob-…, or the id of a run run_…")]


class JobCallError(GuanmoError):
    """The service refused a call, or does not answer."""

    code = "finetune_call_failed"


@finetune.callback()
def describe() -> None:
    """Fine-tuning jobs: list, watch, cancel, pause, resume, rerun."""


@finetune.command("list")
def list_jobs(key: Key, url: Url = DEFAULT_URL, limit: Annotated[int, typer.Option(min=1, max=100)] = 20) -> None:
    """List the newest jobs."""
    page = _ask(lambda: _connect(key, url).fine_tuning.jobs.list(limit=limit).data)
    table = Table("job", "state", "base", "model", "tokens")
    for job in page:
        own = _own(job)
        table.add_row(job.id, own["state"], job.model, job.fine_tuned_model or "", f"{job.trained_tokens or ''}")
    Console().print(table)


@finetune.command("watch")
def watch(job_id: JobId, key: Key, url: Url = DEFAULT_URL) -> None:
    """Show a job live until it is over: losses, health, speed, time left, cost, queue, log. Ctrl-C leaves."""
    client, job_id, losses = _connect(key, url), _as_job(job_id), list[float]()
    with Live(console=Console(), refresh_per_second=4) as live:
        while True:
            job = _ask(lambda: client.fine_tuning.jobs.retrieve(job_id))
            told = _ask(lambda: client.fine_tuning.jobs.list_events(job_id, limit=100).data)
            losses = read_losses(told) or losses
            live.update(draw_job(job, told, losses))
            if job.status in _OVER:
                break
            time.sleep(POLL_S)
    raise typer.Exit(0 if job.status == "succeeded" else 1)


@finetune.command("cancel")
def cancel(job_id: JobId, key: Key, url: Url = DEFAULT_URL) -> None:
    """Stop a job after its current step; the metered part is billed."""
    _tell(_ask(lambda: _connect(key, url).fine_tuning.jobs.cancel(_as_job(job_id))))


@finetune.command("pause")
def pause(job_id: JobId, key: Key, url: Url = DEFAULT_URL) -> None:
    """Stop a job after its current step and keep its checkpoint; the money stays held."""
    _tell(_ask(lambda: _connect(key, url).fine_tuning.jobs.pause(_as_job(job_id))))


@finetune.command("resume")
def resume(job_id: JobId, key: Key, url: Url = DEFAULT_URL) -> None:
    """Go on with a paused job from its checkpoint."""
    _tell(_ask(lambda: _connect(key, url).fine_tuning.jobs.resume(_as_job(job_id))))


@finetune.command("rerun")
def rerun(job_id: JobId, key: Key, url: Url = DEFAULT_URL, yes: Yes = False) -> None:
    """Show what the same job would differ in today, and start it again once that is confirmed."""
    from openai.types.fine_tuning import FineTuningJob

    client, job_id = _connect(key, url), _as_job(job_id)
    path = f"/fine_tuning/jobs/{job_id}/rerun"
    found = _ask(lambda: client.get(path, cast_to=dict[str, Any]))
    Console(highlight=False, markup=False).print(draw_differences(found))
    limit = (
        ""
        if found["max_fen"] is None
        else choose(
            f"（最多冻结自有资金 {yuan(found['max_fen'])}）",
            f" (it holds at most {yuan(found['max_fen'])} of your own)",
        )
    )
    confirm(f"重新运行 {job_id}{limit}？", f"Run {job_id} again{limit}?", yes=yes)
    _tell(_ask(lambda: client.post(path, body={"confirm": True}, cast_to=FineTuningJob)))


def draw_differences(found: dict[str, Any]) -> RenderableType:
    """Return what a rerun would differ in as a table, or the sentence that nothing does."""
    if not found["differences"]:
        count = len(found["compared"])
        return choose(
            f"没有差异：基座、数据、配方、种子、版本和价格共 {count} 项均与当时相同。",
            f"No differences: base, data, recipe, seed, versions and price are as they were ({count} compared).",
        )
    table = Table(*choose("项目 当时 现在", "what then now").split(), box=None, pad_edge=False)
    for item in found["differences"]:
        values = ("-" if item[side] is None else str(item[side]) for side in ("then", "now"))
        table.add_row(item["name"], *(value[:12] if len(value) == 64 else value for value in values))
    return table


def draw_job(job: Any, events: Sequence[Any], losses: Sequence[float]) -> Panel:
    """Return one picture of a job: bar, figures, the loss as a line of blocks, the newest events."""
    own = _own(job)
    now = own.get("progress") or {}
    done, whole = now.get("tokens") or 0, now.get("planned_tokens") or 1
    if job.status == "succeeded":
        done = whole
    figures = Table.grid(padding=(0, 2))
    for label, value in list_figures(job, own, now):
        figures.add_row(Text(label, style="dim"), value)
    newest = [Text(f"{event.message}", style="dim", overflow="ellipsis", no_wrap=True) for event in events[:_LOG_LINES]]
    parts: list[RenderableType] = [
        ProgressBar(total=whole, completed=done, width=_WIDTH),
        figures,
        Text(draw_line(losses)),
        *newest,
    ]
    return Panel(Group(*parts), title=f"{job.id}  {own['state']}", subtitle=job.fine_tuned_model, width=_WIDTH + 20)


def list_figures(job: Any, own: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, str]]:
    """Return label and text of every figure that is known."""
    queue = own.get("queue") or {}
    found = [
        ("base", job.model),
        ("queue", f"{queue['position']} (about {queue['eta_s']} s)" if queue else ""),
        ("step", f"{now.get('step')} / {now.get('steps')}" if now else ""),
        ("loss", _number(now.get("loss"), "{:.4f}")),
        ("held-out loss", _number(now.get("valid_loss"), "{:.4f}")),
        ("held-out token accuracy", _number(now.get("valid_token_accuracy"), "{:.1%}")),
        ("healthy band", "{:.4f} to {:.4f}".format(*now["band"]) if now.get("band") else ""),
        ("look at", ", ".join(_name_check(check) for check in now.get("health") or [] if not check["ok"])),
        ("tokens/s", _number(now.get("tokens_per_s"), "{:,.0f}")),
        ("time left", _number(now.get("eta_s"), "{:.0f} s")),
        ("cost so far", _yuan(now.get("cost_fen"))),
        ("quoted, own part", _yuan(own.get("self_paid_fen"))),
        ("error", f"{job.error.message} [{job.error.code}]" if job.error and job.error.code else ""),
    ]
    return [(label, text) for label, text in found if text]


def read_losses(events: Sequence[Any]) -> list[float]:
    """Return the training losses among events, oldest first."""
    found = [event.data.get("train_loss") for event in reversed(events) if isinstance(event.data, dict)]
    return [float(value) for value in found if value is not None]


def draw_line(values: Sequence[float]) -> str:
    """Return numbers as blocks of eight heights, the newest 60."""
    shown = values[-_WIDTH:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    return "".join(_BARS[int((value - low) / ((high - low) or 1.0) * (len(_BARS) - 1))] for value in shown)


def _connect(key: str, url: str) -> Any:
    import openai

    return openai.OpenAI(api_key=key, base_url=url, max_retries=1)


def _ask(call: Callable[[], Any]) -> Any:
    import openai

    try:
        return call()
    except openai.APIStatusError as error:
        raise JobCallError(error.message, error.message) from error
    except openai.APIConnectionError as error:
        raise JobCallError(
            f"The service does not answer ({error.request.url}). Check --url, and that `guanmo status` shows it up.",
            f"服务没有响应（{error.request.url}）。请检查 --url 以及 guanmo status。",
        ) from error


def _own(job: Any) -> dict[str, Any]:
    """Return the hub's own member of a job; another service has none."""
    found: dict[str, Any] = (job.model_extra or {}).get("guanmo") or {"state": job.status}
    return found


def _as_job(text: str) -> str:
    return f"ftjob-{text.removeprefix('run_')}" if text.startswith("run_") else text


def _tell(job: Any) -> None:
    Console(highlight=False).print(f"{job.id}: {_own(job)['state']}")


def _name_check(check: dict[str, Any]) -> str:
    ends = (("not below", check["low"]), ("not above", check["high"]))
    healthy = " and ".join(f"{word} {end:.4g}" for word, end in ends if end is not None)
    return f"{check['code'].replace('_', ' ')} {check['value']:.4g} (healthy: {healthy})"


def _number(value: Any, pattern: str) -> str:
    return "" if value is None else pattern.format(float(value))


def _yuan(fen: int | None) -> str:
    return "" if fen is None else f"CNY {fen / 100:.2f}"

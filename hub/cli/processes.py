"""Which processes make a marketplace, how each is started and how each says it is well.

It leaves keeping them alive to supervisord, whose configuration is written here.
"""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from hub.jobs.trainer import locate_warm_trainer
from hub.secrets import PREVIOUS_PEPPER
from hub.settings import Settings
from registry.mlflow_server import prepare_server, server_argv, server_env

LOG_BYTES = 10_000_000
# OpenTelemetry's own name for where spans go; engines inherit it, the gateway is told.
TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
# The warm trainer forks, so it must not open a CUDA context by only asking whether there is a device.
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


@dataclass(frozen=True)
class Process:
    """One supervised process; `health_url` answers 200 when it works, empty where only running counts."""

    name: str
    argv: list[str]
    health_url: str
    port: int | None
    environment: dict[str, str] = field(default_factory=dict)
    stop_wait_s: int = 30
    host: str = "127.0.0.1"


def list_processes(settings: Settings) -> list[Process]:
    """Return the processes in starting order; they stop in the reverse of it."""
    home, local = settings.home, "127.0.0.1"
    pool_url = f"http://{local}:{settings.pool_port}"
    hub = _module(
        "gunicorn",
        "--no-control-socket",
        "marketplace_ui.app:create_app()",
        bind=f"{settings.bind}:{settings.hub_port}",
        worker_class="gthread",
        workers="1",
        threads="64",
        timeout="120",
        keep_alive="75",
    )
    pool = _module(
        "serving.pool",
        hub=settings.hub_url,
        token_file=f"{home}/secrets/pool.token",
        listen=f"{local}:{settings.pool_port}",
        store=str(settings.artifacts),
        state=f"{home}/pool",
    )
    gateway = _module(
        "serving.gateway",
        hub=settings.hub_url,
        token_file=f"{home}/secrets/gateway.token",
        pool=pool_url,
        listen=f"{settings.bind}:{settings.gateway_port}",
        journal=f"{home}/journal",
        processes=str(len(os.sched_getaffinity(0))),
        pepper_file=f"{home}/secrets/pepper",
        admin=f"{local}:{settings.gateway_admin_port}",
    )
    previous = home / "secrets" / PREVIOUS_PEPPER
    gateway += ["--previous-pepper-file", str(previous)] if previous.exists() else []
    gateway += ["--log-calls", *(("--otlp-endpoint", os.environ[TRACES]) if os.environ.get(TRACES) else ())]
    door = f"http://{settings.reach}"
    return [
        _mlflow(settings),
        Process("hub", hub, f"{door}:{settings.hub_port}/healthz", settings.hub_port, host=settings.bind),
        Process("pool", pool, f"{pool_url}/status", settings.pool_port, stop_wait_s=60),
        Process(
            "gateway", gateway, f"{door}:{settings.gateway_port}/healthz", settings.gateway_port, host=settings.bind
        ),
        Process("worker", _module("hub.worker"), "", None),
        Process("trainer", _module("finetune.warm", str(locate_warm_trainer(home))), "", None, _OFFLINE),
    ]


def socket_path(home: Path) -> Path:
    """Return supervisord's control socket."""
    return home / "run" / "supervisor.sock"


def configuration_path(home: Path) -> Path:
    """Return supervisord's configuration, by which its command line is known."""
    return home / "run" / "supervisord.conf"


def write_configuration(settings: Settings, processes: list[Process]) -> Path:
    """Write supervisord's configuration and return its path."""
    home = settings.home
    for folder in ("run", "logs", "journal", "pool", "artifacts", "mlflow"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    prepare_server(home, password_file=_mlflow_password(settings))
    socket = socket_path(home)
    parts = [
        f"[unix_http_server]\nfile={socket}\nchmod=0700\n",
        f"[supervisord]\nlogfile={home}/logs/supervisord.log\npidfile={home}/run/supervisord.pid\nchildlogdir={home}/logs\n"
        "logfile_maxbytes=1000000\nlogfile_backups=1\nnodaemon=false\nsilent=true\nminfds=1024\n",
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n",
        *(_write_program(settings, process, order) for order, process in enumerate(processes)),
    ]
    path = configuration_path(home)
    path.touch(mode=0o600)
    path.write_text("\n".join(parts))
    return path


def _write_program(settings: Settings, process: Process, order: int) -> str:
    environment = {
        "GUANMO_HOME": str(settings.home),
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) - 1)),
        # Trainer and engine share cores: waiting OpenMP threads that spin made both ten times slower (measured).
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
        # What engines keep between starts stays in the installation's own folder, not in somebody's home.
        "VLLM_CACHE_ROOT": str(settings.home / "cache" / "vllm"),
        "TORCHINDUCTOR_CACHE_DIR": str(settings.home / "cache" / "inductor"),
        "TRITON_CACHE_DIR": str(settings.home / "cache" / "triton"),
        "PYTHONUNBUFFERED": "1",
        **process.environment,
    }
    # supervisord strips the quotes of a value and reads nothing else in it but its own percent signs.
    joined = ",".join(f'{name}="{value.replace("%", "%%")}"' for name, value in environment.items())
    lines = [
        f"[program:{process.name}]",
        f"command={' '.join(_quote(part) for part in process.argv)}",
        f"environment={joined}",
        f"priority={10 * (order + 1)}",
        "autorestart=true",
        "startsecs=2",
        "startretries=5",
        f"stopwaitsecs={process.stop_wait_s}",
        "redirect_stderr=true",
        f"stdout_logfile={settings.home}/logs/{process.name}.log",
        f"stdout_logfile_maxbytes={LOG_BYTES}",
        "stdout_logfile_backups=2",
    ]
    return "\n".join(lines) + "\n"


def _mlflow(settings: Settings) -> Process:
    port = settings.mlflow_port
    environment = server_env(settings.home, password_file=_mlflow_password(settings), inherited=os.environ)
    return Process("mlflow", server_argv(settings.home, port), f"http://127.0.0.1:{port}/health", port, environment)


def _mlflow_password(settings: Settings) -> Path:
    return settings.home / "secrets" / "mlflow.password"


def _module(name: str, *positional: str, **options: str) -> list[str]:
    flags = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", value)]
    return [sys.executable, "-m", name, *flags, *positional]


def _quote(text: str) -> str:
    escaped = text.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if any(sign in text for sign in " ()'\"%;") else text

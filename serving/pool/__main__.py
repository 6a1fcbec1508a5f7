"""`python -m serving.pool`: read arguments and environment once, then run the controller until told to stop."""

import argparse
import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import aiohttp
from aiohttp import web

from serving.launch import LocalLaunch, WarmProgram
from serving.logs import write_json_lines
from serving.pool.controller import Controller
from serving.pool.engine_command import CommandBuilder, VllmCommands
from serving.pool.engine_logs import LOADED_LOG
from serving.pool.server import create_app
from serving.pool.settings import Accelerator, Files, Settings

_INHERITED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "XDG_CACHE_HOME")
_INHERITED_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "NCCL_", "VLLM_", "TORCH", "HF_HOME", "OTEL_")


def main(arguments: Sequence[str]) -> int:
    """Run the controller. Returns 0 after SIGTERM or SIGINT, 2 for bad settings."""
    write_json_lines()
    parser = _make_parser()
    options = parser.parse_args(arguments)
    try:
        settings = read_settings(options, os.environ)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    asyncio.run(serve(settings))
    return 0


def read_settings(options: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Settings from parsed arguments. Raises: OSError for an unreadable token, ValueError for a bad address."""
    host, _, port = options.listen.rpartition(":")
    if host not in ("127.0.0.1", "::1", "localhost") or not port.isdigit():
        raise ValueError(f"--listen {options.listen!r}: use 127.0.0.1:PORT; routes and demand carry no password")
    files = _read_files(options)
    return Settings(
        hub_url=options.hub or "",
        token="" if files else _read_token(options),
        host=host,
        port=int(port),
        store=Path(options.store).absolute(),
        state=Path(options.state).absolute(),
        accelerator=find_accelerator(),
        cpu_count=len(os.sched_getaffinity(0)),
        keep_replicas=options.keep_replicas,
        environment={
            name: value
            for name, value in environment.items()
            if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
        },
        files=files,
    )


def _read_files(options: argparse.Namespace) -> Files | None:
    """What stands in for a hub, None with one. Raises: ValueError unless it is one of both, whole."""
    with_hub, alone = (options.hub, options.token_file), (options.desired, options.routes)
    if all(with_hub) and not any(alone):
        return None
    if all(alone) and not any(with_hub):
        return Files(Path(options.desired).absolute(), Path(options.routes).absolute())
    raise ValueError("give either --hub and --token-file, or --desired and --routes to stand alone")


def _read_token(options: argparse.Namespace) -> str:
    token = Path(options.token_file).read_text(encoding="ascii").strip()
    if not token:
        raise ValueError(f"--token-file {options.token_file} is empty; `guanmo init` writes it")
    return token


def find_accelerator() -> Accelerator:
    """CUDA where plain vLLM is installed and a driver is there, else CPU."""
    installed = {found.metadata["Name"].lower() for found in metadata.distributions(name="vllm")}
    has_driver = shutil.which("nvidia-smi") is not None or Path("/dev/nvidiactl").exists()
    return Accelerator.CUDA if "vllm" in installed and has_driver else Accelerator.CPU


async def serve(settings: Settings) -> None:
    """Run controller and HTTP server until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    build_command = VllmCommands(settings.accelerator, settings.cpu_count, settings.environment)
    warm = build_command.keep_loaded(settings.state / "logs" / LOADED_LOG)
    try:
        await run_pool(settings, build_command, stop, warm=warm)
    finally:
        if warm is not None:
            warm.close()


async def run_pool(
    settings: Settings, build_command: CommandBuilder, stop: asyncio.Event, *, warm: WarmProgram | None = None
) -> None:
    """Run controller and HTTP server until `stop`; what fits `warm` is forked from it."""
    async with aiohttp.ClientSession(trust_env=False) as http:
        launch = LocalLaunch(settings.state / "processes", warm)
        controller = Controller(settings, http=http, launch=launch, build_command=build_command)
        app = create_app(controller.routes, controller.demand, controller.read_status)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, settings.host, settings.port).start()
            await controller.run(stop)
        finally:
            await runner.cleanup()


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving.pool", description="Guanmo pool controller")
    parser.add_argument("--hub", help="URL of the hub")
    parser.add_argument("--token-file", help="file with the pool's bearer token")
    parser.add_argument("--desired", metavar="FILE", help="stand alone: desired state as JSON, followed as it changes")
    parser.add_argument("--routes", metavar="FILE", help="stand alone: where routes are written for `guanmo gateway`")
    parser.add_argument("--listen", required=True, metavar="HOST:PORT", help="loopback address for gateways")
    parser.add_argument("--store", required=True, help="folder of artifacts by digest")
    parser.add_argument("--state", required=True, help="folder of this controller's own state")
    parser.add_argument("--keep-replicas", action="store_true", help="leave engines running at the end")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

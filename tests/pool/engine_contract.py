"""What the pool asks of an engine, in one go: for stock vLLM and for the fake that the pool's fast tests stand on."""

from pathlib import Path

import aiohttp
import pytest

from serving.contract import BASE_ENGINE_NAME
from serving.pool.engine_client import EngineClient
from serving.pool.errors import EngineError

NAME = "lora-" + "c" * 32
ASK_S = 60.0


async def check_engine(url: str, adapter: Path) -> None:
    """Ask a warm engine that has room for `adapter`; it has no adapter more afterwards."""
    async with aiohttp.ClientSession() as http:
        engine = EngineClient(http, url)
        assert await engine.is_up()
        before = await engine.list_models()
        assert before[BASE_ENGINE_NAME] == 1024
        await _check_adapters(engine, adapter)
        assert await engine.list_models() == before
        await _check_counters(engine)


async def _check_adapters(engine: EngineClient, adapter: Path) -> None:
    with pytest.raises(EngineError):
        await engine.load_adapter(NAME, adapter / "nowhere")
    assert NAME not in await engine.list_models()
    await engine.load_adapter(NAME, adapter)
    await engine.load_adapter(NAME, adapter)
    assert NAME in await engine.list_models()
    await engine.ask(NAME, prompt_tokens=32, timeout_s=ASK_S)
    own = (engine.own_prompt_tokens, engine.own_completion_tokens)
    assert await engine.time_calls(NAME, calls=2, tokens=4) > 0
    assert (engine.own_prompt_tokens - own[0], engine.own_completion_tokens - own[1]) == (2 * 16, 2 * 4)
    await engine.unload_adapter(NAME)
    await engine.unload_adapter(NAME)
    with pytest.raises(EngineError) as refused:
        await engine.ask(NAME, prompt_tokens=4, timeout_s=ASK_S)
    assert refused.value.code == "engine_http_404"


async def _check_counters(engine: EngineClient) -> None:
    before = await engine.read_load()
    own = (engine.own_prompt_tokens, engine.own_completion_tokens)
    await engine.ask(BASE_ENGINE_NAME, prompt_tokens=20, timeout_s=ASK_S)
    after = await engine.read_load()
    assert (engine.own_prompt_tokens - own[0], engine.own_completion_tokens - own[1]) == (20, 1)
    assert after.prompt_tokens - before.prompt_tokens >= 20
    assert after.completion_tokens - before.completion_tokens >= 1
    assert (before.in_flight, after.in_flight) == (0, 0)

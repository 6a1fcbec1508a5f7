"""One streamed chat call through the gateway, as the pages make it: opened, read piece by piece, refusals in words.

It leaves admission, routing and metering to the gateway, and whose key is used to `tryout_keys`.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from hub.errors import GuanmoError
from marketplace_ui.layout import translate

MAX_TOKENS = 256
READ_S = 45
TIMEOUT = httpx.Timeout(READ_S, connect=5)
LEARN_TRIES = 16
LEARN_WAIT_S = 0.5
"""A fresh key reaches the gateway with its next snapshot, usually within a second; wait up to eight."""

BROKEN = ("\n（回答中断，只按实际生成的词元计费。）", "\n(The answer broke off; only the tokens made are billed.)")
NOT_BEGUN = (
    f"{READ_S} 秒内没有回答，推理引擎可能正在启动，请一分钟后再试。",
    f"No answer within {READ_S} s; the engine may be starting. Try again in a minute.",
)

CHINESE = {
    "insufficient_quota": "余额或额度不足，请充值或调整密钥额度后重试。",
    "model_not_deployed": "该模型尚未部署，请先由所有者部署。",
    "model_not_found": "没有该模型，或您无权调用。",
    "no_replica_ready": "推理引擎正在启动，请稍后重试。",
    "replica_not_ready": "推理引擎正在启动，请稍后重试。",
    "replicas_busy": "推理引擎繁忙，请稍后重试。",
    "queue_full": "排队已满，请稍后重试。",
    "rate_limit_exceeded": "调用过于频繁，请稍后重试。",
    "context_length_exceeded": "输入过长，超出模型上下文，请缩短。",
    "filing_missing": "该模型的基座未备案，其他机构不能调用。",
    "filing_expired": "该模型的备案已到期，不能调用。",
    "model_retired": "该模型已退役，请使用新版本。",
    "hub_unavailable": "网关暂时联系不上控制面，请稍后重试。",
}
"""The gateway speaks English to programs; these are its refusals that a person can meet on the page."""


class GatewayRefusedError(GuanmoError):
    """The gateway did not take the call; its own words say why."""

    code = "gateway_refused"
    status = 409


@dataclass(frozen=True)
class GatewayCall:
    """Where and with which key to call; `fresh` allows for a key that the gateway may not know yet."""

    base_url: str
    key: str
    fresh: bool


class Answer:
    """An opened answer: its headers are known, its text still flows. Read it once, to the end."""

    def __init__(self, client: httpx.Client, response: httpx.Response) -> None:
        self._client = client
        self._response = response
        self._begun = False
        self._give_up_s = time.monotonic() + READ_S
        self.headers = response.headers

    def read(self) -> Iterator[str]:
        """Yield the text as it comes; an answer that breaks off or never begins ends with a line that says so."""
        ending: tuple[str, str] | None = BROKEN
        try:
            for line in self._response.iter_lines():
                payload = line.removeprefix("data:").strip()
                if payload == "[DONE]":
                    ending = None
                    break
                if line.startswith("data:"):
                    self._begun = True
                    yield _read_event(payload)
                elif not self._begun and time.monotonic() > self._give_up_s:
                    # The gateway holds a call while an engine starts; a person would rather be told.
                    ending = NOT_BEGUN
                    break
        except httpx.HTTPError:
            ending = BROKEN if self._begun else NOT_BEGUN
        finally:
            self.close()
        if ending is not None:
            yield translate(*ending)

    def close(self) -> None:
        """End the call; the gateway settles what was generated so far."""
        self._response.close()
        self._client.close()


def open_answer(call: GatewayCall, model: str, message: str) -> Answer:
    """Ask a model and return the answer once its first byte may flow.

    Raises:
        GatewayRefusedError: refused, or the gateway does not answer.
    """
    client = httpx.Client(timeout=TIMEOUT, trust_env=False)
    try:
        return Answer(client, _send(client, call, model, message))
    except httpx.ReadTimeout as error:
        client.close()
        raise GatewayRefusedError(NOT_BEGUN[1], NOT_BEGUN[0]) from error
    except httpx.HTTPError as error:
        client.close()
        raise GatewayRefusedError(
            f"The gateway at {call.base_url} does not answer. Ask the operator whether it runs ('guanmo status').",
            f"网关 {call.base_url} 没有响应，请联系运营方（guanmo status）。",
        ) from error
    except GatewayRefusedError:
        client.close()
        raise


def _send(client: httpx.Client, call: GatewayCall, model: str, message: str) -> httpx.Response:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": message}],
        "stream": True,
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
    }
    for attempt in range(LEARN_TRIES):
        request = client.build_request(
            "POST", f"{call.base_url}/chat/completions", json=body, headers={"Authorization": f"Bearer {call.key}"}
        )
        response = client.send(request, stream=True)
        if response.status_code != 401 or not call.fresh or attempt == LEARN_TRIES - 1:
            break
        response.close()
        time.sleep(LEARN_WAIT_S)
    if response.status_code != 200:
        response.read()
        response.close()
        raise _explain(response)
    return response


def _explain(response: httpx.Response) -> GatewayRefusedError:
    try:
        error: dict[str, Any] = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        error = {"code": str(response.status_code), "message": f"The gateway answered {response.status_code}."}
    code, text = str(error.get("code")), str(error.get("message"))
    return GatewayRefusedError(text, CHINESE.get(code, f"网关拒绝了调用（{code}）：{text}"), gateway_code=code)


def _read_event(payload: str) -> str:
    event = json.loads(payload)
    if "error" in event:
        return "\n" + CHINESE.get(str(event["error"].get("code")), str(event["error"].get("message")))
    return "".join(choice.get("delta", {}).get("content") or "" for choice in event.get("choices", ()))

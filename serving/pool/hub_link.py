"""The controller's side of the hub's routes: lead, desired, observed, witness; the controller decides when."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import aiohttp

from serving.contract import ContractError, Desired, Lead, LeadGrant, Observed, WitnessBatch, decode, encode
from serving.pool.errors import PoolError

Message = TypeVar("Message")
_CALL_S = 10.0
_LATE_S = 2.0  # that a call may take beyond its time; who needs longer was stopped meanwhile


class HubSilentError(PoolError):
    """The hub did not answer, or not sensibly; the last desired state stays."""

    def __init__(self, message: str, code: str = "hub_silent") -> None:
        super().__init__(code, message)


class HubAwayError(HubSilentError):
    """Nobody heard us: no connection, no answer in time, or a server's own failure (5xx)."""


class WrongEpochError(PoolError):
    """Another epoch leads; ask to lead again."""

    def __init__(self, message: str) -> None:
        super().__init__("wrong_epoch", message)


class Hub(Protocol):
    """Whoever says what should run and hears what does; the calls are those of `HubLink`."""

    epoch: int | None

    def leads(self) -> bool:
        """Whether no other controller can lead now."""

    async def ensure_lead(self) -> int:
        """Our epoch, asked for when there is none."""

    async def fetch_desired(self, *, after: int, wait_s: float) -> Desired | None:
        """Desired state newer than generation `after`, None when none within `wait_s`."""

    async def report(self, observed: Observed) -> None:
        """Say what runs."""

    async def send_witness(self, batch: WitnessBatch) -> None:
        """Hand over what engines counted."""

    def lose(self, epoch: int) -> None:
        """Note that `epoch` was refused."""


class HubLink:
    """HTTP with the pool's bearer token. `epoch` is None while we do not lead.

    The hub may give the lead to another controller once it heard nothing of us for a while. `lead_s` is less than that:
    who was stopped for longer asks before it acts again. A hub that is away itself gives the lead to nobody.
    """

    def __init__(
        self, http: aiohttp.ClientSession, *, hub_url: str, token: str, controller_id: str, lead_s: float
    ) -> None:
        self._http = http
        self._root = f"{hub_url.rstrip('/')}/internal/v1"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._controller_id = controller_id
        self._lead_s = lead_s
        self._lead_ends_s = float("-inf")
        self._lead_lock = asyncio.Lock()
        self.epoch: int | None = None

    def leads(self) -> bool:
        """Whether no other controller can lead now."""
        return self.epoch is not None and _now_s() < self._lead_ends_s

    async def ensure_lead(self) -> int:
        """Our epoch, asked for when there is none. Raises: HubSilentError, WrongEpochError while another one leads."""
        async with self._lead_lock:
            if self.epoch is None:
                asked_s = _now_s()
                answer = await self._call("POST", "/pool/lead", encode(Lead(self._controller_id)))
                self.epoch, self._lead_ends_s = _read(LeadGrant, answer).epoch, asked_s + self._lead_s
            return self.epoch

    async def fetch_desired(self, *, after: int, wait_s: float) -> Desired | None:
        """Desired state newer than generation `after`, None when none within `wait_s`. Raises: as `ensure_lead`."""
        path = f"/pool/desired?after={after}&wait_s={wait_s:g}"
        answer = await self._call("GET", path, timeout_s=wait_s + _CALL_S)
        return None if answer is None else _read(Desired, answer)

    async def report(self, observed: Observed) -> None:
        """Say what runs; renews the lead, unless the hub gave it to another. Raises: as `ensure_lead`."""
        asked_s = _now_s()
        try:
            await self._call("PUT", "/pool/observed", encode(observed))
        except WrongEpochError:
            self.lose(observed.epoch)
            raise
        except HubAwayError:
            # What was desired last stays in force while the hub is away; who was away himself has to ask it again.
            now_s = _now_s()
            if now_s - asked_s <= _CALL_S + _LATE_S:
                self._extend(observed.epoch, now_s)
            raise
        self._extend(observed.epoch, asked_s)

    async def send_witness(self, batch: WitnessBatch) -> None:
        """Hand over what engines counted; again changes nothing. Raises: HubSilentError."""
        await self._call("POST", "/witness", encode(batch))

    def lose(self, epoch: int) -> None:
        """Note that `epoch` was refused; a newer one that was granted meanwhile stays."""
        if self.epoch == epoch:
            self.epoch = None

    def _extend(self, epoch: int, from_s: float) -> None:
        if epoch == self.epoch:
            self._lead_ends_s = from_s + self._lead_s

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout_s: float = _CALL_S
    ) -> object:
        url, timeout = self._root + path, aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._http.request(method, url, json=body, headers=self._headers, timeout=timeout) as response:
                text = await response.text()
                if response.status == 409:
                    raise WrongEpochError(f"{method} {url}: {text:.200}")
                if response.status >= 500:
                    raise HubAwayError(f"{method} {url} answered {response.status}: {text:.200}")
                if response.status >= 400:
                    raise HubSilentError(f"{method} {url} answered {response.status}: {text:.200}")
                return None if response.status == 204 else await response.json()
        except (aiohttp.ContentTypeError, ValueError) as error:
            raise HubSilentError(f"{method} {url}: {type(error).__name__} {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise HubAwayError(f"{method} {url}: {type(error).__name__} {error}") from error


def _read(kind: type[Message], answer: object) -> Message:
    try:
        return decode(kind, answer)
    except ContractError as error:
        raise HubSilentError(f"the hub's {kind.__name__} cannot be read: {error}") from error


def _now_s() -> float:
    """Seconds that go on while the machine sleeps: the hub's do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)

"""A thin client of the hub's HTTP API: sign in, call, wait. It knows paths and polling, no rule of the market."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

READ_TRIES = 3
READ_TIMEOUT_S = 15.0


class RefusedError(Exception):
    """The hub refused a call; carries its coded problem."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(f"{problem.get('detail') or problem.get('title')} [{problem.get('code')}]")
        self.problem = problem

    @property
    def code(self) -> str:
        """The stable code of the refusal."""
        return str(self.problem.get("code"))


class Hub:
    """One signed-in person's view of the hub."""

    def __init__(self, url: str, *, email: str = "", password: str = "", language: str = "en") -> None:
        """Open a connection and, if an e-mail is given, sign in."""
        self.http = httpx.Client(base_url=url, timeout=60, headers={"Accept-Language": language})
        self.url = url
        if email:
            token = self.post("/api/v1/sessions", email=email, password=password)["token"]
            self.http.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, **query: Any) -> Any:
        """GET a JSON document; a connection that breaks or stays silent is tried again, reading twice does no harm."""
        params = query or None  # an empty mapping would take the query off the path
        for _ in range(READ_TRIES - 1):
            try:
                return _read(self.http.get(path, params=params, timeout=READ_TIMEOUT_S))
            except httpx.TransportError:
                time.sleep(0.5)
        return _read(self.http.get(path, params=params, timeout=READ_TIMEOUT_S))

    def post(self, path: str, *, idempotency_key: str | None = None, **body: Any) -> Any:
        """POST JSON members and return the JSON answer."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return _read(self.http.post(path, json=body, headers=headers))

    def delete(self, path: str) -> Any:
        """DELETE something."""
        return _read(self.http.delete(path))

    def upload(self, path: str, files: list[tuple[str, Path]], **fields: str) -> Any:
        """POST files as multipart form data with text fields beside them."""
        opened = [(name, (file.name, file.read_bytes())) for name, file in files]
        return _read(self.http.post(path, files=opened, data=fields))

    def wait(
        self,
        path: str,
        until: set[str],
        *,
        timeout_s: float = 600,
        every_s: float = 0.5,
        on_change: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Poll a document until its `state` is one of `until`; `on_change` sees every new version of it.

        Raises:
            TimeoutError: names the state it was stuck in.
        """
        for document in self._poll(path, every_s):
            if on_change:
                on_change(document)
            if document["state"] in until:
                return document
            timeout_s -= every_s
            if timeout_s < 0:
                raise TimeoutError(f"{path} stayed '{document['state']}'; wanted one of {sorted(until)}")
        raise AssertionError

    def _poll(self, path: str, every_s: float) -> Iterator[dict[str, Any]]:
        while True:
            yield self.get(path)
            time.sleep(every_s)


def _read(answer: httpx.Response) -> Any:
    if answer.status_code == 204:
        return None
    if answer.is_success:
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text
    problem = answer.json() if "json" in answer.headers.get("content-type", "") else {"detail": answer.text[:300]}
    raise RefusedError({"code": answer.status_code, **problem})

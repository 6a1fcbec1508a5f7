"""The examples' client sends what it was asked to send."""

import httpx
import pytest

from examples.hub_client import Hub


@pytest.mark.parametrize(
    ("path", "query", "sent"),
    [
        ("/api/v1/usage?limit=1000", {}, "limit=1000"),
        ("/api/v1/usage", {"limit": 5}, "limit=5"),
        ("/api/v1/usage", {}, ""),
    ],
)
def test_a_query_reaches_the_hub_however_it_is_given(path: str, query: dict[str, int], sent: str) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.query.decode())
        return httpx.Response(200, json={})

    hub = Hub("http://hub")
    hub.http.close()
    hub.http = httpx.Client(base_url="http://hub", transport=httpx.MockTransport(answer))
    with hub.http:
        hub.get(path, **query)
    assert seen == [sent]

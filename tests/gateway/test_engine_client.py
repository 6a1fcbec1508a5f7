"""The connections to engines: kept after a whole answer, unless something came that nobody asked for."""

import asyncio
import contextlib

import pytest

from serving.gateway.engine_client import EngineClient

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class ChattyEngine:
    """Answers requests of two bytes with their number, and `extra` behind it."""

    def __init__(self, extra: bytes) -> None:
        self.extra = extra
        self.connections = 0
        self.answers = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer until the other side leaves."""
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
                writer.write(HEAD + b"%02d" % self.answers + self.extra)
                self.answers += 1
        writer.close()


async def ask_thrice(engine: ChattyEngine) -> list[bytes]:
    server, client, bodies = await asyncio.start_server(engine.serve, "127.0.0.1", 0), EngineClient(), []
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for _ in range(3):
        answer = await client.post(url, "/v1/x", b"{}", request_id="req", account="alw key ver")
        await answer.head()
        bodies.append(await answer.read())
        answer.close()
    client.close()
    server.close()
    await asyncio.sleep(0.05)  # for connections that are just being closed
    return bodies


@pytest.mark.parametrize(("extra", "connections"), [(b"", 1), (b"HTTP/1.1 2", 3), (b"?", 3), (HEAD + b"99", 3)])
def test_what_follows_a_whole_answer_never_begins_the_next_one(extra: bytes, connections: int) -> None:
    engine = ChattyEngine(extra)
    assert asyncio.run(ask_thrice(engine)) == [b"00", b"01", b"02"]
    assert engine.connections == connections

"""
A TLS server that answers every request at once like SES does, in a process of its own.

It does as little as it can, so that the clients are what is measured: it reads a request by its Content-Length and
writes one fixed answer. Prints its port.
"""

from __future__ import annotations

import asyncio
import ssl
import sys

BODY = b'{"MessageId":"0100018c5a7b1234-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee-000000"}'
HEAD = (
    b"HTTP/1.1 200 OK\r\nDate: Mon, 02 Nov 2026 10:00:00 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: keep-alive\r\n"
    b"x-amzn-RequestId: 5d1f0e9a-0000-4000-8000-000000000000\r\n\r\n"
)
ANSWER = HEAD % len(BODY) + BODY
BULK = b"/v2/email/outbound-bulk-emails"
ENTRY = b'{"Status":"SUCCESS",' + BODY[1:]


def bulk_answer(entries: int) -> bytes:
    """All taken."""
    body = b'{"BulkEmailEntryResults":[%b]}' % b",".join([ENTRY] * entries)
    return HEAD % len(body) + body


class Connection(asyncio.Protocol):
    """One client connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            begin = head.find(b"content-length:")
            length = int(head[begin + 15 :].split(b"\r\n", 1)[0]) if begin >= 0 else 0
            if b"expect: 100-continue" in head:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # type: ignore[attr-defined]
            if len(self.buffer) < end + 4 + length:
                return
            request, self.buffer = self.buffer[: end + 4 + length], self.buffer[end + 4 + length :]
            answer = bulk_answer(request.count(b'"Destination"', end)) if BULK in request[:end] else ANSWER
            self.transport.write(answer)  # type: ignore[attr-defined]


async def main(certificate: str) -> None:
    """Serve until the parent closes our standard input."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    try:
        import uvloop as fast
    except ImportError:
        fast = asyncio  # type: ignore[assignment]
    fast.run(main(sys.argv[1]))

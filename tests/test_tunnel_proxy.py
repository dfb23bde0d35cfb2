from __future__ import annotations

import base64
import socket

import pytest

from tanksend.testing import SimulatedSES, TunnelProxy

GET = b"GET /v2/email/account HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def talk(proxy: TunnelProxy, *parts: bytes) -> bytes:
    """Send each part after an answer to the one before; everything that came back."""
    host, port = proxy.bare_url.removeprefix("http://").split(":")
    came = b""
    with socket.create_connection((host, int(port)), timeout=60) as client:
        for part in parts:
            client.sendall(part)
            came += client.recv(65_536)
        while data := client.recv(65_536):
            came += data
    return came


def connect(ses, *headers):
    """A CONNECT to the simulated SES."""
    lines = [f"CONNECT {ses.host}:{ses.port} HTTP/1.1", "Host: x", *headers, "", ""]
    return "\r\n".join(lines).encode()


def test_a_tunnel_carries_bytes_both_ways():
    """After CONNECT the proxy is only a pipe."""
    with SimulatedSES() as ses, TunnelProxy() as proxy:
        proxy.start()
        came = talk(proxy, connect(ses), GET)
        assert came.startswith(b"HTTP/1.1 200 Connection Established\r\n\r\nHTTP/1.1 200 OK")
        assert (proxy.tunnels, proxy.targets) == (1, [f"{ses.host}:{ses.port}"])
        assert repr(proxy) == "<TunnelProxy tunnels=1 refused=0>"


def test_credentials():
    """Who does not name them gets a 407, who does a tunnel."""
    with SimulatedSES() as ses, TunnelProxy(username="anna", password="pass") as proxy:
        assert proxy.url == proxy.bare_url.replace("http://", "http://anna:pass@")
        good = base64.b64encode(b"anna:pass").decode()
        assert talk(proxy, connect(ses)).startswith(b"HTTP/1.1 407 ")
        assert talk(proxy, connect(ses, "Proxy-Authorization: Basic eA==")).startswith(b"HTTP/1.1 407 ")
        assert talk(proxy, connect(ses, f"proxy-authorization: BASIC {good}"), GET).startswith(b"HTTP/1.1 200 ")
        assert (proxy.tunnels, proxy.refused) == (1, 2)


def test_what_it_does_not_do():
    """It knows CONNECT only, and says when nobody is there."""
    with SimulatedSES() as ses, TunnelProxy() as proxy:
        assert talk(proxy, GET).startswith(b"HTTP/1.1 405 ")
        ses.stop()
        assert talk(proxy, connect(ses)).startswith(b"HTTP/1.1 502 ")
        assert proxy.tunnels == 0


def test_stopping_ends_open_tunnels():
    """An open tunnel and a client that has said nothing do not hold it up."""
    with SimulatedSES() as ses, TunnelProxy() as proxy:
        host, port = proxy.bare_url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as silent:
            with socket.create_connection((host, int(port)), timeout=60) as client:
                client.sendall(connect(ses))
                assert client.recv(100).startswith(b"HTTP/1.1 200 ")
                proxy.stop()
                proxy.stop()
                with pytest.raises(ConnectionError):  # noqa: PT012  (how soon is the system's business)
                    while True:
                        client.sendall(b"x")
            assert silent.fileno() > 0

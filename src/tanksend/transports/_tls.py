"""
TLS on bytes: whom to trust, and one TLS session without a socket.

The session is ours and not the event loop's, because the loops hide what matters here: whether the last byte of a
request reached the kernel, and how to let go of a connection in a forked child without a word on it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..exceptions import SettingError

if TYPE_CHECKING:
    import os
    from ssl import SSLContext

__all__ = ["TlsPipe", "Trust", "client_context"]

_RECORD = 16_384  # The most that one TLS record carries (RFC 8446 section 5.1).


class Trust:
    """
    The certificates to trust, loaded once: that takes 10 to 30 ms.

    Args:
        ca_bundle: A file or directory to trust instead of the system's store.
        proxy_ca_bundle: The same for TLS to the proxy; ``None`` for the same as *ca_bundle*.
    """

    def __init__(self, ca_bundle: str | None = None, proxy_ca_bundle: str | None = None) -> None:
        self._bundles = (ca_bundle, proxy_ca_bundle or ca_bundle)
        self._contexts: dict[str | None, SSLContext] = {}

    def load(self) -> None:
        """
        Load what is not yet loaded. Blocks: for worker threads.

        Raises:
            SettingError: A bundle cannot be read.
        """
        for bundle in self._bundles:
            if bundle not in self._contexts:
                self._contexts[bundle] = context = client_context(bundle)
                context.set_alpn_protocols(["http/1.1"])

    def context(self, *, proxy: bool = False) -> SSLContext:
        """The context for the endpoint, or for TLS to the proxy; `load` comes first."""
        return self._contexts[self._bundles[proxy]]


def client_context(bundle: str | os.PathLike[str] | None) -> SSLContext:
    """
    Verify certificates and names, by *bundle* or the system's store. Takes 10 to 30 ms: for worker threads.

    Raises:
        SettingError: The bundle cannot be read.
    """
    import ssl

    try:
        if bundle is None:
            context = ssl.create_default_context()
        elif Path(bundle).is_dir():
            context = ssl.create_default_context(capath=bundle)
        else:
            context = ssl.create_default_context(cafile=bundle)
    except OSError as error:  # ssl.SSLError is one.
        raise SettingError(f"The certificate bundle cannot be loaded ({type(error).__name__}).") from None
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    # So that writing never has to wait for reading.
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


class TlsPipe:
    """
    The client's side of one TLS session: what came goes in, what is to be sent comes out.

    Args:
        context: Whom to trust.
        host: Whose certificate to expect.

    Every method may raise `ssl.SSLError`; the session is over then.
    """

    __slots__ = ("_incoming", "_outgoing", "_session", "_want_read", "closed")

    def __init__(self, context: SSLContext, host: str) -> None:
        import ssl

        self._want_read = ssl.SSLWantReadError
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.closed = False

    def handshake(self, data: bytes | memoryview = b"") -> bool:
        """Go on with the handshake; True when it is done."""
        if data:
            self._incoming.write(data)
        try:
            self._session.do_handshake()
        except self._want_read:
            return False
        return True

    def take(self) -> bytes:
        """What is to be sent."""
        return self._outgoing.read()

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """Wrap *data*; gives everything that is to be sent."""
        self._session.write(data)
        return self._outgoing.read()

    def decrypt(self, data: bytes | memoryview) -> bytes:
        """Unwrap *data*; `closed` says whether the other side has ended the session."""
        incoming, read = self._incoming, self._session.read
        incoming.write(data)
        plain = b""
        # Reading when nothing is there costs an exception, so stop at the end of the last record.
        while incoming.pending:
            try:
                record = read(_RECORD)
            except self._want_read:
                break
            if not record:
                self.closed = True
                break
            plain += record
        return plain

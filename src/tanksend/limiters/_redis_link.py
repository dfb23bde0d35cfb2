"""
One script on one Redis, called from any event loop.

redis-py's blocking client does the talking, on worker threads: one code path for asyncio and trio, for every loop and
thread. A call that nobody waits for any longer ends by itself, and what it was granted is given back at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread

from ..exceptions import PartError, SettingError
from ._redis_script import KEYS, SCRIPT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..typing import Clock

    Undo = Callable[["Answer"], None]

_TIMEOUT = 1.0
"""Seconds for connecting, and for one answer."""
_THREADS = 8
"""Calls that one event loop makes at the same time."""
_PASSING = ("READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "MISCONF", "OOM")
"""Answers of a server that will do better later."""

_threads: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("tanksend-redis-threads")


class Unreachable(Exception):  # noqa: N818  (a state, and nobody outside sees it)
    """The server cannot be asked now. What it was asked may have been done."""


class Answer:
    """What the script said, with what it knows of the account; its moments are those of the caller's clock."""

    def __init__(self, values: Sequence[str], offset: float) -> None:
        self.kind = values[0]
        self.serial = float(values[2])
        self.rate, self.pace, self.quota, self.spent, self.throttles = map(float, values[3:8])
        self.reading_due = values[8] == "1"
        self.words = values[9]
        self._values = values[10:]
        self._offset = offset

    def number(self, index: int) -> float:
        """The value with that number, from 0 on."""
        return float(self._values[index])

    def moment(self, index: int) -> float:
        """A moment, rather late than early."""
        return float(self._values[index]) + self._offset


class RedisLink:
    """
    Calls the script.

    Args:
        url_or_client: Where the server is, or a blocking client of redis-py's (also for a cluster).
        name: Names the state; all keys have it in braces, so that they are on one node of a cluster.
        clock: The caller's time.
        server_time: False: the script is told the time of *clock*, and runs without a thread. For tests.
    """

    def __init__(self, url_or_client: Any, name: str, *, clock: Clock, server_time: bool) -> None:  # noqa: ANN401
        self._redis = _redis_module()
        self._url = url_or_client if isinstance(url_or_client, str) else None
        self._given = None if isinstance(url_or_client, str) else url_or_client
        self._own: Any = None
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._keys = [f"tanksend:{{{name}}}:{key}" for key in KEYS]
        self._sha = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
        self._clock = clock
        self._server_time = server_time
        self._offset = 0.0
        if self._url is not None:
            self._connect()  # which opens nothing yet, but tells what is wrong with the address

    async def call(self, arguments: Callable[[str], Sequence[object]], undo: Undo | None = None) -> Answer:
        """
        Run the script once.

        Args:
            arguments: Gives all arguments, when it is told the time to pass.
            undo: Takes back what an answer granted that came when nobody waited for it. It may block.

        Raises:
            Unreachable: There is no answer; what was asked may have been done.
            PartError: The server refuses, and will go on refusing.
        """
        if not self._server_time:
            await anyio.lowlevel.checkpoint()
            return self.run(arguments)
        errand = _Errand(lambda: self.run(arguments), undo)
        try:
            await anyio.to_thread.run_sync(errand.run, abandon_on_cancel=True, limiter=_threads_of_this_loop())
        except BaseException:
            await errand.abandon()
            raise
        return errand.result()

    def run(self, arguments: Callable[[str], Sequence[object]]) -> Answer:
        """The same, blocking, and from wherever it is called."""
        self._look_at_process()
        began = self._clock.monotonic()
        told = "" if self._server_time else repr(began)
        values = self._evaluate([*self._keys, *map(str, arguments(told))])
        text = [value.decode() if isinstance(value, bytes) else str(value) for value in values]
        return Answer(text, self._offset_of(began, float(text[1])))

    def _offset_of(self, began: float, server: float) -> float:
        """
        What to add to the server's moments, so that they are never too early here.

        The server's *now* was between our asking and its answer. So the true offset lies in between too, and the
        smallest that was ever an upper bound is the best, until it cannot be true any longer: clocks drift, and jump.
        """
        ended = self._clock.monotonic()
        with self._lock:
            if not began - server <= self._offset <= ended - server:
                self._offset = ended - server
            return self._offset

    def _evaluate(self, arguments: list[str]) -> Sequence[Any]:
        errors = self._redis.exceptions
        try:
            client = self._client()
            try:
                answer: Sequence[Any] = client.evalsha(self._sha, len(KEYS), *arguments)
            except errors.NoScriptError:
                answer = client.eval(SCRIPT, len(KEYS), *arguments)
        except (errors.AuthenticationError, errors.NoPermissionError) as error:
            raise _refused(error) from None
        except (errors.ConnectionError, errors.TimeoutError, errors.RedisClusterException, OSError) as error:
            raise Unreachable(type(error).__name__) from None
        except errors.RedisError as error:
            if any(word in str(error) for word in _PASSING):
                raise Unreachable(type(error).__name__) from None
            raise _refused(error) from None
        return answer

    def _look_at_process(self) -> None:
        """A forked child lets go of its parent's client without a word."""
        if self._pid != os.getpid():
            self._pid, self._lock, self._own = os.getpid(), threading.Lock(), None

    def _client(self) -> Any:  # noqa: ANN401
        if self._given is not None:
            return self._given  # redis-py's pools know their process, and start anew in another one
        with self._lock:
            return self._connect()

    def _connect(self) -> Any:  # noqa: ANN401
        if self._own is None:
            # No attempts of redis-py's own: a script that is run twice has granted twice.
            retry = self._redis.retry.Retry(self._redis.backoff.NoBackoff(), 0)
            try:
                self._own = self._redis.Redis.from_url(
                    self._url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT, retry=retry
                )
            except ValueError:
                raise SettingError("the address of Redis must begin with redis://, rediss:// or unix://") from None
        return self._own

    def close(self) -> None:
        """Close what was opened here; it opens again when it is used again."""
        own, self._own = self._own, None
        if own is not None and self._pid == os.getpid():
            own.close()


class _Errand:
    """A blocking call in a worker thread, which may be left alone while it runs."""

    def __init__(self, call: Callable[[], Answer], undo: Undo | None) -> None:
        self._call = call
        self._undo = undo
        self._lock = threading.Lock()
        self._abandoned = False
        self._answer: Answer | None = None
        self._error: Exception | None = None

    def run(self) -> None:
        """Make the call, in the thread. An error waits for `result`: nobody may be there to get it."""
        try:
            answer = self._call()
        except Exception as error:  # noqa: BLE001  (raised again where the answer is waited for)
            self._error = error
            return
        with self._lock:
            self._answer = answer
            abandoned = self._abandoned
        if abandoned:
            self._take_back()

    async def abandon(self) -> None:
        """Nobody waits any longer: what has been granted is given back, now or when it comes."""
        with self._lock:
            self._abandoned = True
            came = self._answer is not None
        if came:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._take_back)

    def result(self) -> Answer:
        """What came of it."""
        if self._error is not None:
            raise self._error
        assert self._answer is not None  # noqa: S101  (it has ended)
        return self._answer

    def _take_back(self) -> None:
        if self._undo is None or self._answer is None:
            return
        # Where that fails, it has been used up for nothing, which is safe.
        with contextlib.suppress(Unreachable, PartError):
            self._undo(self._answer)


def _threads_of_this_loop() -> anyio.CapacityLimiter:
    try:
        return _threads.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_THREADS)
        _threads.set(limiter)
        return limiter


def _refused(error: Exception) -> PartError:
    return PartError(f"Redis refuses to pace ({type(error).__name__})", part="limiter", cause_type=type(error).__name__)


def _redis_module() -> Any:  # noqa: ANN401
    try:
        import redis
        import redis.backoff
        import redis.exceptions
        import redis.retry
    except ImportError:
        raise SettingError("RedisLimiter needs redis-py: pip install 'tanksend[redis]'") from None
    return redis

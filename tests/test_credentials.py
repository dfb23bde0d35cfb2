from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import threading
import time

import anyio
import botocore.session
import pytest
from botocore.credentials import DeferredRefreshableCredentials, RefreshableCredentials
from botocore.exceptions import EndpointConnectionError, ProfileNotFound, UnauthorizedSSOTokenError

from tanksend._sigv4 import Credentials
from tanksend.exceptions import CredentialsError, SettingError
from tanksend.transports import _credentials
from tanksend.transports._credentials import credentials_provider, environment_credentials

pytestmark = pytest.mark.anyio

ONE = Credentials("AKIDONE", "secret-one", "token-one")
TWO = Credentials("AKIDTWO", "secret-two", "token-two")
IN_ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "AKIDENV", "AWS_SECRET_ACCESS_KEY": "secret-env"}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No AWS variables, an empty home and no instance metadata."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / ".aws").mkdir()
    return tmp_path


class Now:
    """The time of `_credentials` and of botocore's refreshable keys, set by hand."""

    def __init__(self):
        self.seconds = time.time()

    def monotonic(self):
        return self.seconds

    def time(self):
        return self.seconds

    def datetime(self):
        return dt.datetime.fromtimestamp(self.seconds, dt.UTC)


@pytest.fixture
def now(monkeypatch):
    """Have the module read this clock."""
    clock = Now()
    monkeypatch.setattr(_credentials, "time", clock)
    return clock


class Session(botocore.session.Session):
    """A session with one source of refreshable keys: each refresh gives the next ones, good for an hour."""

    def __init__(self, now, *, deferred=False, lifetime=3600):
        super().__init__()
        self.now = now
        self.lifetime = lifetime
        self.asked = 0
        self.threads = []
        self.failure = None
        if deferred:
            self._credentials = DeferredRefreshableCredentials(self.renew, "test", time_fetcher=now.datetime)
        else:
            self._credentials = RefreshableCredentials(
                "AKID0", "secret", "token0", self.end(), self.renew, "test", time_fetcher=now.datetime
            )

    def end(self):
        return self.now.datetime() + dt.timedelta(seconds=self.lifetime)

    def renew(self):
        self.threads.append(threading.current_thread())
        if self.failure is not None:
            raise self.failure
        self.asked += 1
        return {
            "access_key": f"AKID{self.asked}",
            "secret_key": "secret",
            "token": f"token{self.asked}",
            "expiry_time": self.end().isoformat(),
        }


# --- given keys ---


async def test_fixed_keys_are_fixed():
    """They come back as they are, and cannot be refreshed; the error says what could."""
    provider = credentials_provider(ONE)
    assert await provider.get() is ONE
    assert await provider.refresh(TWO) is ONE
    with pytest.raises(CredentialsError, match="function that fetches keys"):
        await provider.refresh(ONE)


@pytest.mark.parametrize("credentials", [("AKID", "secret"), "AKID", 1])
async def test_other_things_are_not_keys(credentials):
    """A tuple or text is a programming error, and is not shown."""
    with pytest.raises(TypeError, match="must be Credentials") as caught:
        credentials_provider(credentials)
    assert "AKID" not in str(caught.value)


async def test_a_profile_and_a_session_contradict():
    """A session has a profile of its own."""
    with pytest.raises(SettingError, match="not both"):
        credentials_provider(profile="x", session=botocore.session.Session())


# --- functions ---


def as_function(kind, fetch):
    """The same function as each kind of callable."""

    async def asynchronous():
        return fetch()

    class Object:
        async def __call__(self):
            return fetch()

    def of_coroutines():
        return asynchronous()

    return {"plain": fetch, "async": asynchronous, "object": Object(), "of coroutines": of_coroutines}[kind]


KINDS = ["plain", "async", "object", "of coroutines"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_function_is_asked_once(kind, now):
    """Without an expiry its keys are kept until AWS calls them expired; then it is asked again."""
    answers = [ONE, TWO]
    provider = credentials_provider(as_function(kind, lambda: answers.pop(0)))
    assert await provider.get() is ONE
    now.seconds += 1e6
    assert await provider.get() is ONE
    assert await provider.refresh(ONE) is TWO
    assert await provider.refresh(ONE) is TWO
    assert await provider.get() is TWO


@pytest.mark.parametrize("kind", KINDS)
async def test_keys_with_an_end_are_renewed_before_it(kind, now):
    """Five minutes ahead; looked at once a second."""
    made = []

    def fetch():
        made.append(Credentials(f"AKID{len(made)}", "secret", "token", expires_at=now.seconds + 3600))
        return made[-1]

    provider = credentials_provider(as_function(kind, fetch))
    assert await provider.get() is made[0]
    now.seconds += 3600 - 301
    assert await provider.get() is made[0]
    now.seconds += 2
    assert await provider.get() is made[1]
    assert await provider.get() is made[1]
    assert len(made) == 2


async def test_a_failure_ahead_of_time_is_not_yet_one(now):
    """While the old keys are good a failing function costs nothing; at their end it is an error."""
    first = Credentials("AKID", "secret", "token", expires_at=now.seconds + 200)
    answers = [first]
    calls = []

    def fetch():
        calls.append(1)
        return answers.pop(0)

    provider = credentials_provider(fetch)
    assert await provider.get() is first
    assert await provider.get() is first
    assert len(calls) == 2
    assert await provider.get() is first
    assert len(calls) == 2
    now.seconds += 1.1
    assert await provider.get() is first
    assert len(calls) == 3
    now.seconds += 190
    with pytest.raises(CredentialsError, match="IndexError") as caught:
        await provider.get()
    assert caught.value.__cause__ is None
    assert caught.value.cause_type == "IndexError"
    answers.append(TWO)
    assert await provider.get() is TWO


@pytest.mark.parametrize("kind", KINDS)
async def test_a_failing_functions_text_is_not_repeated(kind):
    """It may hold anything; the type is told."""

    def fail():
        raise RuntimeError("secret-one of account 123456789012")

    with pytest.raises(CredentialsError, match=r"function that fetches.*\(RuntimeError\)") as caught:
        await credentials_provider(as_function(kind, fail)).get()
    assert "secret-one" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_functions_own_credentials_error_passes(kind):
    """It knows best."""

    def fail():
        raise CredentialsError("The vault is sealed")

    with pytest.raises(CredentialsError, match="The vault is sealed"):
        await credentials_provider(as_function(kind, fail)).get()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_function_must_give_keys(kind):
    """The type that came instead is named, not its content."""
    with pytest.raises(CredentialsError, match="gave tuple instead"):
        await credentials_provider(as_function(kind, lambda: ("AKID", "secret"))).get()


async def test_the_same_keys_again_are_no_refresh():
    """A function with nothing newer: an error, so that nobody tries for ever."""
    provider = credentials_provider(lambda: Credentials("AKID", "secret"))
    keys = await provider.get()
    with pytest.raises(CredentialsError, match="no newer"):
        await provider.refresh(keys)
    assert await provider.get() is keys


async def test_a_plain_function_blocks_no_loop():
    """It runs in another thread, and once for all who wait."""
    here = threading.current_thread()
    threads = []
    go = threading.Event()

    def fetch():
        threads.append(threading.current_thread())
        go.wait(60)
        return ONE

    provider = credentials_provider(fetch)
    got = []

    async def get():
        got.append(await provider.get())

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(get)
        while not threads:
            await anyio.lowlevel.checkpoint()
        go.set()
    assert got == [ONE] * 5
    assert len(threads) == 1
    assert threads[0] is not here


async def test_waiting_for_keys_can_be_cancelled():
    """A function that hangs in its thread does not hold its caller."""
    go = threading.Event()
    provider = credentials_provider(lambda: go.wait(60) and ONE)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await provider.get()
    assert scope.cancelled_caught
    go.set()


# --- environment ---


@pytest.mark.parametrize(
    "environment",
    [
        {},
        IN_ENVIRONMENT,
        IN_ENVIRONMENT | {"AWS_SESSION_TOKEN": "token"},
        IN_ENVIRONMENT | {"AWS_SECURITY_TOKEN": "old", "AWS_SESSION_TOKEN": "token"},
        IN_ENVIRONMENT | {"AWS_SESSION_TOKEN": ""},
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "secret"},
        {"AWS_SECRET_ACCESS_KEY": "secret"},
    ],
)
async def test_the_environment_is_read_as_botocore_reads_it(environment):
    """Same names, same order."""
    theirs = botocore.credentials.EnvProvider(environ=environment).load()
    ours = environment_credentials(environment)
    expected = theirs and Credentials(theirs.access_key, theirs.secret_key, theirs.token)
    assert ours == expected


async def test_half_a_pair_is_an_error(monkeypatch):
    """As in botocore: better than to fall through to another account's profile."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    with pytest.raises(CredentialsError, match="AWS_SECRET_ACCESS_KEY is not"):
        await credentials_provider().get()


async def test_the_environment_is_read_once_and_again_when_stale(monkeypatch):
    """The same object each time; after a refresh what the environment says then, or an error if that is the same."""
    for name, value in IN_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    provider = credentials_provider()
    first = await provider.get()
    assert first == Credentials("AKIDENV", "secret-env")
    assert await provider.get() is first
    with pytest.raises(CredentialsError, match="no newer"):
        await provider.refresh(first)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDNEW")
    second = await provider.refresh(first)
    assert second.access_key == "AKIDNEW"
    assert await provider.get() is second


async def test_environment_keys_need_no_botocore(home):
    """A whole process: keys from the environment, and botocore is not loaded."""
    script = (
        "import sys, anyio\n"
        "from tanksend.transports._credentials import credentials_provider\n"
        "keys = anyio.run(credentials_provider().get)\n"
        "sys.exit(keys.access_key != 'AKIDENV' or 'botocore' in sys.modules)\n"
    )
    (home / ".aws" / "credentials").write_text("[default]\naws_access_key_id = x\naws_secret_access_key = y\n")
    environment = os.environ | IN_ENVIRONMENT
    assert (await anyio.run_process([sys.executable, "-c", script], env=environment, check=False)).returncode == 0


# --- botocore ---

FILE = """
[default]
aws_access_key_id = AKIDDEFAULT
aws_secret_access_key = secret

[other]
aws_access_key_id = AKIDOTHER
aws_secret_access_key = secret
aws_session_token = token
"""


@pytest.mark.parametrize(
    "environment", [{}, IN_ENVIRONMENT, {"AWS_PROFILE": "other"}, IN_ENVIRONMENT | {"AWS_PROFILE": "other"}]
)
@pytest.mark.parametrize("profile", [None, "default", "other"])
async def test_the_chain_is_botocores(home, monkeypatch, environment, profile):
    """Environment before AWS_PROFILE; an explicit profile before the environment."""
    (home / ".aws" / "credentials").write_text(FILE)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    theirs = botocore.session.Session(profile=profile).get_credentials()
    ours = await credentials_provider(profile=profile).get()
    assert ours == Credentials(theirs.access_key, theirs.secret_key, theirs.token)


async def test_a_rewritten_file_is_read_again(home):
    """Tools that renew keys write them into the file; the same file again is an error, and not read twice a second."""
    place = home / ".aws" / "credentials"
    place.write_text(FILE)
    provider = credentials_provider(profile="other")
    first = await provider.get()
    assert await provider.get() is first
    with pytest.raises(CredentialsError, match="no newer"):
        await provider.refresh(first)
    place.write_text(FILE.replace("= token", "= newer"))
    with pytest.raises(CredentialsError, match="no newer"):
        await provider.refresh(first)
    provider._hopeless = None
    second = await provider.refresh(first)
    assert second.token == "newer"
    assert await provider.get() is second
    assert await provider.refresh(first) is second


async def test_no_keys_anywhere_says_how_to_give_them():
    """The three ways."""
    with pytest.raises(
        CredentialsError, match=r"no AWS credentials.*credentials=.*AWS_ACCESS_KEY_ID.*profile"
    ) as caught:
        await credentials_provider().get()
    assert caught.value.code == "NoCredentials"


async def test_a_missing_profile_is_named_without_its_account():
    """Sign-on tools put account ids into profile names."""
    with pytest.raises(CredentialsError, match="no AWS profile '…_Admin'") as caught:
        await credentials_provider(profile="123456789012_Admin").get()
    assert caught.value.cause_type == ProfileNotFound.__name__


async def test_our_session_gets_the_senders_region(home):
    """Roles need STS somewhere: the sender's region where nothing else says one."""
    (home / ".aws" / "credentials").write_text(FILE)
    provider = credentials_provider(region="cn-north-1")
    await provider.get()
    assert provider._own.get_config_variable("region") == "cn-north-1"
    (home / ".aws" / "config").write_text("[default]\nregion = eu-west-1\n")
    provider = credentials_provider(region="cn-north-1")
    await provider.get()
    assert provider._own.get_config_variable("region") == "eu-west-1"


@pytest.mark.parametrize("deferred", [False, True])
async def test_refreshable_keys_are_renewed_ahead_in_a_thread(now, deferred):
    """In botocore's own margin, never in the loop's thread, and without a hop in between."""
    session = Session(now, deferred=deferred)
    provider = credentials_provider(session=session)
    first = await provider.get()
    asked = session.asked
    now.seconds += 3600 - 15 * 60 - 2
    assert await provider.get() is first
    now.seconds += 3
    second = await provider.get()
    assert second.access_key == f"AKID{asked + 1}"
    assert await provider.get() is second
    assert threading.current_thread() not in session.threads


async def test_get_hops_no_thread_while_keys_last(now, monkeypatch):
    """A thousand messages a second look once."""
    session = Session(now)
    provider = credentials_provider(session=session)
    await provider.get()
    looked = []
    monkeypatch.setattr(session._credentials, "refresh_needed", lambda seconds=None: looked.append(seconds))
    monkeypatch.setattr(anyio.to_thread, "run_sync", None)
    for _ in range(1000):
        await provider.get()
    assert looked == [10.0, None]


async def test_a_session_that_fails_ahead_of_time_goes_on(now):
    """Ten minutes before the end botocore raises; the old keys still serve, until their last seconds."""
    session = Session(now)
    provider = credentials_provider(session=session)
    first = await provider.get()
    session.failure = RuntimeError("account 123456789012")
    now.seconds += 3600 - 300
    assert await provider.get() is first
    assert session.threads
    now.seconds += 295
    with pytest.raises(CredentialsError, match="could not be loaded") as caught:
        await provider.get()
    assert "123456789012" not in str(caught.value)
    session.failure = None
    assert (await provider.get()).access_key == "AKID1"


async def test_a_given_sessions_keys_can_be_forced(now):
    """AWS calls them expired although they look good: one renewal for all who ask."""
    session = Session(now)
    provider = credentials_provider(session=session)
    stale = await provider.get()
    got = []

    async def refresh():
        got.append(await provider.refresh(stale))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(refresh)
    assert {keys.access_key for keys in got} == {"AKID1"}
    assert session.asked == 1


async def test_a_given_session_with_fixed_keys_has_no_newer():
    """boto3.Session(aws_access_key_id=...): nothing to renew."""
    boto3 = pytest.importorskip("boto3")
    session = boto3.Session(aws_access_key_id="AKID", aws_secret_access_key="secret", aws_session_token="token")
    provider = credentials_provider(session=session)
    keys = await provider.get()
    assert keys == Credentials("AKID", "secret", "token")
    with pytest.raises(CredentialsError, match="no newer"):
        await provider.refresh(keys)


async def test_a_session_without_keys_is_an_error():
    """Its chain is asked, and finds nothing."""
    with pytest.raises(CredentialsError, match="no AWS credentials"):
        await credentials_provider(session=botocore.session.Session()).get()


@pytest.mark.parametrize(
    ("failure", "text", "retryable"),
    [
        (UnauthorizedSSOTokenError(), "aws sso login", False),
        (EndpointConnectionError(endpoint_url="https://sts.example"), "could not be reached", True),
        (ValueError("123456789012"), "could not be loaded", False),
    ],
)
async def test_botocores_failures_are_told_by_their_kind(now, failure, text, retryable):
    """An ended sign-on, no network, anything else: what to do, and nothing of the text."""
    session = Session(now, deferred=True)
    session.failure = failure
    with pytest.raises(CredentialsError, match=text) as caught:
        await credentials_provider(session=session).get()
    assert caught.value.retryable is retryable
    assert caught.value.cause_type == type(failure).__name__
    assert "123456789012" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_several_loops_and_threads_share_a_provider(now):
    """Four threads with loops of their own, keys that end in the middle: all get keys, each set is fetched once."""
    session = Session(now, deferred=True)
    provider = credentials_provider(session=session)
    start = threading.Barrier(4)
    got = []

    def work(backend):
        async def main():
            got.extend([(await provider.get()).access_key for _ in range(50)])
            start.wait(60)
            now.seconds += 900
            got.append((await provider.refresh(Credentials("AKID1", "secret", "token1"))).access_key)

        start.wait(60)
        anyio.run(main, backend=backend)

    threads = [threading.Thread(target=work, args=(backend,)) for backend in ("asyncio", "trio") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got.count("AKID1") == 200
    assert set(got) == {"AKID1", "AKID2"}
    assert session.asked == 2


FORK = """
import os, sys, threading, anyio
from tanksend.transports._credentials import credentials_provider
provider = credentials_provider(profile="other")
stale = anyio.run(provider.get)
parents = provider._own
provider._one_at_a_time.held().acquire()  # As if a thread were asking at this moment.
if (child := os.fork()) == 0:
    provider._held.look_at, provider._held.lasts = 0.0, lambda _: False
    keys = anyio.run(provider.get)
    os._exit(not (keys is stale and provider._own is not parents))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_asks_anew(home):
    """The parent's lock and session may be held by a thread the child does not have."""
    (home / ".aws" / "credentials").write_text(FILE)
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=False, timeout=120).returncode == 0

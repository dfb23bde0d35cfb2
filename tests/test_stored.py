from __future__ import annotations

import json
import os
import sys
import threading
import time

import anyio
import pytest

from tanksend import Template
from tanksend._classify import parse_v2_error
from tanksend._http1 import Answer
from tanksend.exceptions import ConfigurationError, ConnectionFailedError, Origin, SendError
from tanksend.transports import _stored
from tanksend.transports._stored import StoredTemplates

pytestmark = pytest.mark.anyio

GREETING = Template(subject="Hi", text="Hello")
ID = {"x-amzn-requestid": "1a22f8ef-0b5d"}


def found(template: Template = GREETING) -> Answer:
    """SES has it."""
    content = {"Subject": template.subject, "Text": template.text}
    return Answer(200, ID, json.dumps({"TemplateName": "a", "TemplateContent": content}).encode(), keep_alive=True)


def refused(status: int, code: str, text: str = "") -> Answer:
    """SES says no."""
    return Answer(status, {**ID, "x-amzn-errortype": code}, json.dumps({"message": text}).encode(), keep_alive=True)


GONE = refused(404, "NotFoundException", "Template a does not exist.")
DENIED = refused(403, "AccessDeniedException", "User is not authorized to perform: ses:GetEmailTemplate")


class SES:
    """Answers as told, and counts."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.stored = StoredTemplates(self.ask, self.judge)

    async def ask(self, name: str) -> Answer:
        """The next answer; the last one for good."""
        self.asked.append(name)
        await anyio.lowlevel.checkpoint()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def judge(self, answer: Answer) -> SendError:
        """As the transport would."""
        return parse_v2_error(answer.status, answer.headers, answer.body)


@pytest.fixture
def later(monkeypatch):
    """Puts the clock forward."""
    passed = [0.0]
    real = time.monotonic
    monkeypatch.setattr(_stored.time, "monotonic", lambda: real() + passed[0])

    def forward(seconds: float) -> None:
        passed[0] += seconds

    return forward


async def test_each_name_is_asked_for_once():
    """By any number of tasks at once, and later."""
    ses = SES(found())
    got = []

    async def get(name: str) -> None:
        got.append(await ses.stored.get(name))

    async with anyio.create_task_group() as tasks:
        for name in "abab" * 5:
            tasks.start_soon(get, name)
    assert [GREETING] * 20 == got
    assert ["a", "b"] == sorted(ses.asked)
    assert await ses.stored.get("a") in got
    assert 2 == len(ses.asked)


async def test_an_answer_is_good_for_five_minutes(later):
    """Somebody may have changed the template since."""
    other = Template(subject="Ho", text="")
    ses = SES(found(), found(other))
    assert await ses.stored.get("a") == GREETING
    later(290.0)
    assert await ses.stored.get("a") == GREETING
    later(20.0)
    assert await ses.stored.get("a") == other


async def test_a_denial_is_kept(later):
    """For good: it says nothing of the mail, and asking again would cost a request each time."""
    ses = SES(DENIED, found())
    for _ in range(3):
        assert await ses.stored.get("a") is None
        later(10_000.0)
    assert ["a"] == ses.asked


@pytest.mark.parametrize(
    "failure",
    [
        refused(429, "TooManyRequestsException", "Rate exceeded"),
        refused(500, "InternalFailure"),
        refused(404, "UnknownOperationException"),
        refused(404, ""),
        refused(403, "ExpiredTokenException"),
        Answer(200, {}, b"<html>", keep_alive=False),
        ConnectionFailedError(),
    ],
    ids=["throttled", "failed", "unknown", "bare-404", "expired", "garbage", "no-connection"],
)
async def test_a_failure_is_asked_about_again_later(failure, later):
    """No mail fails for it, and not each mail asks anew."""
    ses = SES(failure, found())
    for _ in range(2):
        assert await ses.stored.get("a") is None
    assert 1 == len(ses.asked)
    later(11.0)
    assert await ses.stored.get("a") == GREETING


@pytest.mark.parametrize("answer", [GONE, refused(400, "TemplateDoesNotExist"), refused(404, "NotFoundException", "?")])
async def test_a_template_that_is_not_there(answer, later):
    """An error of its own for each who asks; SES is asked every five seconds."""
    ses = SES(answer, found())
    errors = []
    for _ in range(2):
        with pytest.raises(ConfigurationError) as caught:
            await ses.stored.get("a")
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert [Origin.TEMPLATE] * 2 == [error.origin for error in errors]
    assert 1 == len(ses.asked)
    later(6.0)
    assert await ses.stored.get("a") == GREETING


async def test_who_is_cancelled_leaves_the_question_to_the_next():
    """Nobody waits for an answer that does not come."""
    ses = SES(found())
    asked = anyio.Event()
    ask = ses.ask

    async def never(name: str) -> Answer:
        if not asked.is_set():
            asked.set()
            await anyio.sleep_forever()
        return await ask(name)

    ses.stored = StoredTemplates(never, ses.judge)
    got = []

    async def get() -> None:
        got.append(await ses.stored.get("a"))

    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()

        async def cancelled() -> None:
            with scope:
                await ses.stored.get("a")

        tasks.start_soon(cancelled)
        await asked.wait()
        tasks.start_soon(get)
        tasks.start_soon(get)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
    assert [GREETING] * 2 == got
    assert ["a"] == ses.asked


async def test_an_answer_that_takes_too_long_is_not_waited_for(monkeypatch):
    """Mail goes unchecked then."""

    async def never(_name: str) -> Answer:
        await anyio.sleep_forever()

    monkeypatch.setattr(_stored, "_PATIENCE", 0.0)
    assert await StoredTemplates(never, SES(found()).judge).get("a") is None


async def test_the_names_kept_have_a_limit():
    """Beyond it all are asked for again."""
    ses = SES(found())
    for number in range(1_030):
        await ses.stored.get(f"name-{number}")
    assert len(ses.stored._known) <= 1_024
    await ses.stored.get("name-0")
    assert 2 == ses.asked.count("name-0")


def test_threads_and_their_loops_share_the_answer():
    """One asks, and wakes the others in their own loops."""
    asking = threading.Event()
    go_on = threading.Event()
    asked = []

    async def ask(name: str) -> Answer:
        asked.append(name)
        asking.set()
        await anyio.to_thread.run_sync(go_on.wait)
        return found()

    stored = StoredTemplates(ask, SES(found()).judge)
    got = []

    def get(backend: str) -> None:
        got.append(anyio.run(stored.get, "a", backend=backend))

    threads = [threading.Thread(target=get, args=(backend,)) for backend in ("asyncio", "trio", "asyncio")]
    threads[0].start()
    assert asking.wait(60)
    for thread in threads[1:]:
        thread.start()
    while len(stored._waiting["a"]) < 2:
        time.sleep(0)
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert [GREETING] * 3 == got
    assert ["a"] == asked


async def test_an_answer_that_came_between_two_looks_is_taken():
    """Another thread had it, and nobody asks any more."""
    ses = SES(found())
    await ses.stored.get("a")
    looks = iter([None])
    fresh = ses.stored._fresh
    ses.stored._fresh = lambda name: next(looks, fresh(name))
    assert await ses.stored.get("a") == GREETING
    assert ["a"] == ses.asked


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_child_asks_for_itself():
    """Whoever asked in the parent answers to nobody there."""
    ses = SES(found())
    assert ses.stored._is_first("a", lambda: None)
    ses.stored._lock.acquire()
    child = os.fork()
    if child == 0:  # pragma: no cover  (another process)
        os._exit(0 if anyio.run(ses.stored.get, "a") == GREETING else 1)
    assert 0 == os.waitpid(child, 0)[1]
    ses.stored._lock.release()
    assert not ses.asked

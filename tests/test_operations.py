from __future__ import annotations

import email
import json

import anyio
import pytest

from tanksend import Sender, SyncSender, Template
from tanksend._http1 import Answer
from tanksend.exceptions import (
    AccessDeniedError,
    ConfigurationError,
    ConnectionFailedError,
    CredentialsError,
    InvalidMessageError,
    InvalidParameterError,
    Origin,
    RenderingError,
    ThrottlingError,
)
from tanksend.operations import SyncTemplates, TemplateInfo, Templates
from tanksend.testing import FakeClock, RecordingTransport, SimulatedSES
from tanksend.transports import Credentials, SESTransport

pytestmark = pytest.mark.anyio

GREETING = Template(subject="Hi {{name}}", text="Dear {{name}}", html="<p>Dear {{name}}")
ID = {"x-amzn-requestid": "1a22f8ef-0b5d"}


class Stub:
    """Answers as told, at the time of a clock that jumps."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[str, str, tuple[str, ...], dict[str, str], bytes]] = []
        self.times: list[float] = []
        self.clock = FakeClock()
        self.templates = Templates(self, clock=self.clock)

    async def request(self, method, path, *segments, query=None, body=b""):
        """The next answer; the last one for good."""
        self.calls.append((method, path, segments, dict(query or {}), body))
        self.times.append(self.clock.monotonic())
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def good(content: object = None) -> Answer:
    """SES did it."""
    return Answer(200, ID, json.dumps({} if content is None else content).encode(), keep_alive=True)


def refused(status: int, code: str, text: str = "") -> Answer:
    """SES says no."""
    return Answer(status, {**ID, "x-amzn-errortype": code}, json.dumps({"message": text}).encode(), keep_alive=True)


def transport_to(ses: SimulatedSES, **options) -> SESTransport:
    """With any keys."""
    return SESTransport(region=ses.region, endpoint_url=ses.url, credentials=Credentials("A", "s"), **options)


async def test_a_template_from_its_cradle_to_its_grave():
    """Created, read, listed, tried out, changed, deleted; the transport's own knowledge of it keeps up."""
    async with SimulatedSES() as ses:
        transport = transport_to(ses)
        templates = Templates(transport, clock=FakeClock())
        with pytest.raises(ConfigurationError):
            await transport.template("welcome")
        await templates.create("welcome", GREETING)
        assert GREETING == await templates.get("welcome") == await transport.template("welcome")
        assert ["welcome"] == [info.name async for info in templates.list()]
        mail = email.message_from_string(await templates.render("welcome", {"name": "Kim"}))
        assert "Hi Kim" == mail["Subject"]
        other = Template(subject="Ho", text="{{#if a}}b{{/if}}")
        await templates.update("welcome", other)
        assert other == await templates.get("welcome") == await transport.template("welcome")
        await templates.delete("welcome")
        assert [] == [info async for info in templates.list()]
        with pytest.raises(ConfigurationError):
            await transport.template("welcome")
        await transport.aclose()


async def test_what_ses_says_no_to():
    """Each with its reason."""
    async with SimulatedSES(templates={"welcome": GREETING}) as ses:
        transport = transport_to(ses)
        templates = Templates(transport, clock=FakeClock())
        with pytest.raises(InvalidParameterError, match="exists already") as taken:
            await templates.create("welcome", GREETING)
        assert "name" == taken.value.field
        for call in (templates.get("gone"), templates.update("gone", GREETING), templates.delete("gone")):
            with pytest.raises(ConfigurationError, match="template gone does not exist") as gone:
                await call
            assert Origin.TEMPLATE == gone.value.origin
        with pytest.raises(RenderingError, match="variable name") as lacking:
            await templates.render("welcome", {"other": "Kim"})
        assert "data[name]" == lacking.value.field
        await transport.aclose()


async def test_many_templates_are_listed_by_pages():
    """All of them, each once."""
    names = [f"t-{number:03}" for number in range(230)]
    async with SimulatedSES(templates=dict.fromkeys(names, GREETING)) as ses:
        async with Sender(from_="a@example.com", transport=transport_to(ses)) as sender:
            listed = [info async for info in Templates(sender, clock=FakeClock()).list()]
        assert names == sorted(info.name for info in listed)
        assert all(info.created_at is not None for info in listed)
        assert 3 == ses.counts.requests


def test_templates_without_an_event_loop():
    """The same methods, from the transport of somebody who sends, and again after the end."""
    with (
        SimulatedSES() as ses,
        SyncSender(from_="a@example.com", transport=transport_to(ses)) as sender,
        SyncTemplates(sender, clock=FakeClock()) as templates,
    ):
        templates.create("a", GREETING)
        assert GREETING == templates.get("a")
        templates.update("a", Template(subject="{{name}}", text="x"))
        assert "Kim" in templates.render("a", {"name": "Kim"})
        assert ["a"] == [info.name for info in templates.list()]
        templates.close()
        templates.delete("a")
        assert not templates.list()
        with pytest.raises(ConfigurationError):
            templates.get("a")


def test_a_way_to_ses_that_cannot_be_closed():
    """Has nothing to be closed."""
    stub = Stub(good())
    with SyncTemplates(stub, clock=stub.clock) as templates:
        templates.delete("a")
    assert 1 == len(stub.calls)


def test_the_text_of_methods_stands_once():
    """Both say the same."""
    assert SyncTemplates.create.__doc__ == Templates.create.__doc__


@pytest.mark.parametrize("kind", [Templates, SyncTemplates])
def test_templates_need_a_way_to_ses(kind):
    """Not every transport has one."""
    with pytest.raises(TypeError, match="RecordingTransport"):
        kind(RecordingTransport())


@pytest.mark.parametrize(
    ("name", "template", "fields"),
    [
        ("two words", GREETING, ["name"]),
        ("", GREETING, ["name"]),
        ("a", Template(subject="Hi", text="{{"), ["text"]),
        ("a/b", Template(subject="a\nb", text="{{#if a}}"), ["name", "subject", "text"]),
    ],
)
async def test_what_ses_would_refuse_is_not_asked_for(name, template, fields):
    """All of it is named at once."""
    stub = Stub(good())
    for call in (stub.templates.create(name, template), stub.templates.update(name, template)):
        with pytest.raises(InvalidMessageError) as caught:
            await call
        assert fields == [problem.field for problem in caught.value.problems]
    for name_alone in (stub.templates.get(""), stub.templates.delete("a b"), stub.templates.render("a/b", {})):
        with pytest.raises(InvalidMessageError):
            await name_alone
    with pytest.raises(ValueError, match="with a name"):
        await stub.templates.create("a", Template(name="b"))
    with pytest.raises(InvalidMessageError, match="JSON cannot carry"):
        await stub.templates.render("a", {"name": b"Kim"})
    assert not stub.calls


async def test_calls_wait_for_their_turn():
    """One a second, and 50 reads."""
    stub = Stub(good({"TemplateName": "a", "TemplateContent": {"Subject": "Hi", "Text": "Hello"}}))
    for _ in range(3):
        await stub.templates.delete("a")
    for _ in range(3):
        await stub.templates.get("a")
    assert pytest.approx([0.0, 1.0, 2.0, 2.0, 2.02, 2.04]) == [moment - stub.times[0] for moment in stub.times]


async def test_throttled_calls_are_made_again():
    """Somebody else is calling too; after five times it is told."""
    throttled = refused(429, "TooManyRequestsException", "Rate exceeded")
    stub = Stub(throttled, throttled, good())
    await stub.templates.delete("a")
    assert 3 == len(stub.calls)
    stub = Stub(throttled)
    with pytest.raises(ThrottlingError) as caught:
        await stub.templates.delete("a")
    assert 5 == len(stub.calls) == caught.value.attempts
    assert stub.times == sorted(stub.times)
    assert stub.times[-1] - stub.times[0] >= 10.0


async def test_a_missing_permission_is_named():
    """The action is that of the call; credentials are another matter."""
    stub = Stub(refused(403, "AccessDeniedException"))
    with pytest.raises(AccessDeniedError, match="ses:CreateEmailTemplate"):
        await stub.templates.create("a", GREETING)
    stub = Stub(refused(403, "ExpiredTokenException"))
    with pytest.raises(CredentialsError) as caught:
        await stub.templates.create("a", GREETING)
    assert "CreateEmailTemplate" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        refused(500, "InternalFailure"),
        Answer(200, ID, b"<html>", keep_alive=True),
        good([]),
        good({"TemplatesMetadata": 7}),
        good({"TemplatesMetadata": [7]}),
        good({"TemplatesMetadata": [{"TemplateName": 7}]}),
    ],
)
async def test_an_answer_that_tells_nothing(answer):
    """No mail is at stake: it can be asked again."""
    stub = Stub(answer)
    for call in (stub.templates.get("a"), stub.templates.render("a", {})):
        with pytest.raises(ConnectionFailedError) as caught:
            await call
        assert ("1a22f8ef-0b5d", False) == (caught.value.request_id, caught.value.maybe_sent)
    with pytest.raises(ConnectionFailedError):
        async for _ in stub.templates.list():
            pass


async def test_a_list_without_dates():
    """Is a list all the same."""
    stub = Stub(
        good({"TemplatesMetadata": [{"TemplateName": "a", "CreatedTimestamp": 17.5}], "NextToken": "x"}),
        good({"TemplatesMetadata": [{"TemplateName": "b", "CreatedTimestamp": "then"}]}),
    )
    assert [TemplateInfo("a", 17.5), TemplateInfo("b")] == [info async for info in stub.templates.list()]
    assert [{"PageSize": "100"}, {"PageSize": "100", "NextToken": "x"}] == [query for *_, query, _ in stub.calls]
    assert [] == [info async for info in Stub(good()).templates.list()]


async def test_the_calls_are_those_of_ses():
    """Method, path and body, by the AWS SDK's own model."""
    from botocore.session import Session

    stub = Stub(good({"TemplateContent": {}, "RenderedTemplate": ""}))
    await stub.templates.create("a", GREETING)
    await stub.templates.get("a")
    await stub.templates.update("a", GREETING)
    await stub.templates.delete("a")
    _ = [info async for info in stub.templates.list()]
    await stub.templates.render("a", {"name": "김"})
    service = Session().get_service_model("sesv2")
    operations = ("Create", "Get", "Update", "Delete", "List", "TestRender")
    for operation, (method, path, segments, _, body) in zip(operations, stub.calls, strict=True):
        name = f"{operation}EmailTemplate" + ("s" if operation == "List" else "")
        model = service.operation_model(name)
        assert model.http["method"] == method
        assert model.http["requestUri"].replace("{TemplateName}", "a") == "/".join((path, *segments))
        assert set(json.loads(body or b"{}")) <= set(model.input_shape.members)
    assert {"TemplateData": '{"name":"김"}'} == json.loads(stub.calls[-1][-1])


async def test_tasks_may_share_it():
    """They take turns."""
    stub = Stub(good())
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(stub.templates.delete, "a")
    assert pytest.approx([0.0, 1.0, 2.0]) == [moment - stub.times[0] for moment in stub.times]

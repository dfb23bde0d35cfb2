from __future__ import annotations

import json
from email import message_from_string, policy

import pytest
from hypothesis import given, strategies as st
from moto.ses.template import parse_template

from tanksend import Template
from tanksend.testing import Request, SimulatedAccount, SimulatedSES, StoredTemplate, TemplateStore
from tanksend.testing._handlebars import RenderingError, TemplateError, compile_template

TEMPLATES = "/v2/email/templates"
SEND = "/v2/email/outbound-emails"
HELLO = {"Subject": "Hello {{name}}", "Text": "Dear {{name}}, {{offer}}", "Html": "<p>Dear {{name}}, {{offer}}</p>"}


def ask(account, method, path, content=None, *, query="", now=0.0):
    """Status and JSON of one answer."""
    data = b"" if content is None else json.dumps(content).encode()
    answer = account.exchange(Request(method, path, query, {}, data, now, 1_800_000_000.0 + now)).answer
    return answer.status, json.loads(answer.body)


def code(account, method, path, content=None, **more):
    """The code of a refusal."""
    data = b"" if content is None else json.dumps(content).encode()
    return account.exchange(Request(method, path, "", {}, data, **more)).answer.error


def body(template, *, to=("anna@example.com",), **more):
    """A SendEmail body with a template."""
    return {
        "FromEmailAddress": "Tank <no-reply@yokee.co.id>",
        "Destination": {"ToAddresses": list(to)},
        "Content": {"Template": template},
        **more,
    }


def send(account, template, **more):
    """Status and JSON of one SendEmail."""
    return ask(account, "POST", SEND, body(template, **more))


# --- Handlebars ---


@pytest.mark.parametrize(
    ("source", "data", "expected"),
    [
        ("plain", {}, "plain"),
        ("{{a}}{{ b }}{{{c}}}{{&d}}", {"a": "1", "b": "2", "c": "3", "d": "4"}, "1234"),
        ("{{a}} {{{a}}}", {"a": '<b>&"\'`='}, '<b>&"\'`= <b>&"\'`='),
        ("{{n}} {{f}} {{t}} {{l}}", {"n": 3, "f": 1.5, "t": True, "l": ["안", 1]}, '3 1.5 true ["안", 1]'),
        ("{{contact.first-name}}", {"contact": {"first-name": "Ann"}}, "Ann"),
        ("{{list.1}} {{list.[0].x}} {{list.length}}", {"list": [{"x": 1}, 2]}, "2 1 2"),
        ("{{[a b].c}}", {"a b": {"c": "x"}}, "x"),
        ("{{#if a}}yes{{else}}no{{/if}}", {"a": 1}, "yes"),
        ("{{#if a}}yes{{else}}no{{/if}}", {"a": ""}, "no"),
        ("{{#if a}}yes{{^}}no{{/if}}", {}, "no"),
        ("{{#if a}}yes{{/if}}", {"a": []}, ""),
        ("{{#if a}}yes{{/if}}", {"a": {}}, "yes"),
        ("{{#if a}}1{{else if b}}2{{else}}3{{/if}}", {"b": 1}, "2"),
        ("{{#if a}}1{{else if b}}2{{else}}3{{/if}}", {}, "3"),
        ("{{#unless a}}no{{else}}yes{{/unless}}", {}, "no"),
        ("{{#unless a}}no{{else}}yes{{/unless}}", {"a": 1}, "yes"),
        ("{{#each l}}{{this}},{{/each}}", {"l": ["a", "b"]}, "a,b,"),
        ("{{#each l}}{{@index}}{{.}}{{#unless @last}};{{/unless}}{{/each}}", {"l": ["a", "b"]}, "0a;1b"),
        ("{{#each l}}{{#if @first}}>{{/if}}{{name}}{{this.name}}{{./name}}{{/each}}", {"l": [{"name": "x"}]}, ">xxx"),
        ("{{#each l}}{{../t}}{{@root.t}}{{/each}}", {"l": [1], "t": "T"}, "TT"),
        ("{{#each o}}{{@key}}={{this}} {{/each}}", {"o": {"a": 1, "b": 2}}, "a=1 b=2 "),
        ("{{#each l}}x{{else}}none{{/each}}", {"l": []}, "none"),
        ("{{#each l}}x{{else}}none{{/each}}", {"l": {}}, "none"),
        ("{{#each l}}x{{else}}none{{/each}}", {"l": "text"}, "none"),
        ("{{#each l}}x{{else}}none{{/each}}", {}, "none"),
        ("{{#each a}}{{#each this}}{{@index}}{{@../index}}{{/each}}{{/each}}".replace("@../", "@"), {"a": [[1]]}, "00"),
        ("{{#with c}}{{name}}{{#with ..}}{{t}}{{/with}}{{/with}}", {"c": {"name": "n"}, "t": "T"}, "nT"),
        ("{{#with c}}x{{else}}none{{/with}}", {}, "none"),
        ("{{#l}}{{this}}{{/l}}{{#o}}{{x}}{{/o}}{{#flag}}!{{/flag}}", {"l": [1, 2], "o": {"x": 3}, "flag": 1}, "123!"),
        ('{{#* inline "p"}}{{a}}{{#if b}} {{b}}{{/if}}{{/inline}}Hi {{> p}}!', {"a": "A", "b": "B"}, "Hi A B!"),
        ("{{#* inline 'p'}}{{x}}{{/inline}}{{> p c}}", {"c": {"x": 1}}, "1"),
        ("a{{! a comment }}b{{!-- another {{one}} --}}c", {}, "abc"),
        ("a \n {{~x~}} \n b {{y}}", {"x": 1, "y": 2}, "a1b 2"),
        (r"\{{x}} {{x}}", {"x": 1}, "{{x}} 1"),
        ("{{amazonSESUnsubscribeUrl}}", {}, "{{amazonSESUnsubscribeUrl}}"),
    ],
)  # fmt: skip
def test_what_templates_become(source, data, expected):
    """Variables are put in as they are, blocks as Handlebars describes them."""
    program = compile_template(source)
    program.check(data)
    assert program.render(data) == expected


@pytest.mark.parametrize(
    ("source", "data", "name"),
    [
        ("{{a}}", {}, "a"),
        ("{{a}}", {"a": None}, "a"),
        ("{{a.b}}", {"a": {}}, "a.b"),
        ("{{a.b}}", {"a": "text"}, "a.b"),
        ("{{l.7}}", {"l": []}, "l.7"),
        ("{{#if a}}{{b}}{{/if}}", {"a": 1}, "b"),
        ("{{#each l}}{{name}}{{/each}}", {"l": [{}], "name": "not here"}, "name"),
        ("{{../a}}", {"a": 1}, "../a"),
        ("{{../../a}}", {"a": 1}, "../../a"),
        ("{{@index}}", {}, "@index"),
    ],
)
def test_what_is_missing_is_named(source, data, name):
    """A variable without a value fails the rendering, and the check before it; null is no value."""
    program = compile_template(source)
    for attempt in (program.check, program.render):
        with pytest.raises(RenderingError, match=f"^Attribute '{name}' is not present in the rendering data.$"):
            attempt(data)


@pytest.mark.parametrize(
    "source",
    [
        "{{#if a}}", "{{/if}}", "{{#if a}}{{/each}}", "{{else}}", "{{a", "{{}}", "{{a b}}", "{{#if}}x{{/if}}",
        "{{#if a b}}x{{/if}}", "{{#each a as |b|}}x{{/each}}", "{{a..b}}", "{{a.}}", "{{.a.b}}", "{{> p}}", "{{>}}",
        "{{#* inline x}}y{{/inline}}", '{{#* inline "x"}}{{else}}{{/inline}}', "{{'text'}}", "{{@}}", "{{#a.}}x{{/a.}}",
    ],
)  # fmt: skip
def test_what_is_no_template(source):
    """It is found when the template is read."""
    with pytest.raises(TemplateError):
        compile_template(source)


def test_partials_that_call_each_other_without_end():
    """They fail the rendering, and nothing else."""
    program = compile_template('{{#* inline "a"}}{{> a}}{{/inline}}{{> a}}')
    with pytest.raises(RenderingError, match="without end"):
        program.render({})


@pytest.mark.parametrize(
    ("source", "simple"), [("{{a}} {{b.c}}", True), ("{{#if a}}x{{/if}}", False), ("{{@root}}", False)]
)
def test_simple_substitution(source, simple):
    """Only variables, with or without dots, are simple."""
    assert compile_template(source).is_simple is simple


names = st.text("abcXYZ", min_size=1, max_size=3)
texts = st.text(st.characters(exclude_characters="{}~\\", exclude_categories=["Cs"]), max_size=10)


@given(st.lists(st.one_of(texts, names.map("{{{{{}}}}}".format)), max_size=8), st.dictionaries(names, texts))
def test_it_renders_as_moto_does(pieces, data):
    """Where moto's renderer knows enough: variables, as real SES has been seen to render them."""
    source = "".join(pieces)
    try:
        expected = parse_template(source, data)
    except Exception as error:  # noqa: BLE001  (a class of moto's own, that is none of RenderingError's)
        expected = str(error)
    try:
        found = compile_template(source).render(data)
    except RenderingError as error:
        found = str(error)
    assert found in expected


def test_a_loop_with_a_condition_renders_as_moto_and_real_ses_do():
    """The one template of moto's tests that was run against real SES."""
    source = "{{#each items}} {{name}} is {{#if best}}the best{{else}}a {{type}}{{/if}}, {{/each}}"
    data = {"items": [{"type": "dog", "name": "bobby", "best": True}, {"type": "cat", "name": "pedro", "best": False}]}
    assert compile_template(source).render(data) == parse_template(source, data)


# --- management ---


def test_a_template_is_created_read_changed_and_deleted():
    """Each operation under its path, and tags stay."""
    account = SimulatedAccount()
    tags = [{"Key": "team", "Value": "news"}]
    assert ask(account, "POST", TEMPLATES, {"TemplateName": "welcome", "TemplateContent": HELLO, "Tags": tags}) == (
        200,
        {},
    )
    found = {"TemplateName": "welcome", "TemplateContent": HELLO, "Tags": tags}
    assert ask(account, "GET", f"{TEMPLATES}/welcome") == (200, found)
    changed = {"Subject": "Hi", "Text": "x"}
    assert ask(account, "PUT", f"{TEMPLATES}/welcome", {"TemplateContent": changed}) == (200, {})
    assert ask(account, "GET", f"{TEMPLATES}/welcome")[1]["TemplateContent"] == changed
    assert ask(account, "DELETE", f"{TEMPLATES}/welcome") == (200, {})
    assert not account.templates
    assert account.counts.by_action == {
        "ses:CreateEmailTemplate": 1,
        "ses:GetEmailTemplate": 2,
        "ses:UpdateEmailTemplate": 1,
        "ses:DeleteEmailTemplate": 1,
    }


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("GET", "/nobody", None),
        ("PUT", "/nobody", {"TemplateContent": HELLO}),
        ("DELETE", "/nobody", None),
        ("POST", "/nobody/render", {"TemplateData": "{}"}),
    ],
)
def test_a_template_that_is_not_there(method, path, content):
    """Every operation on it says so."""
    account = SimulatedAccount()
    assert ask(account, method, TEMPLATES + path, content) == (404, {"message": "Template nobody does not exist."})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"TemplateName": "welcome", "TemplateContent": HELLO}, "AlreadyExistsException"),
        ({"TemplateContent": HELLO}, "BadRequestException"),
        ({"TemplateName": "no name", "TemplateContent": HELLO}, "BadRequestException"),
        ({"TemplateName": "new"}, "BadRequestException"),
        ({"TemplateName": "new", "TemplateContent": {"Subject": "{{#if}}"}}, "BadRequestException"),
        ({"TemplateName": "new", "TemplateContent": {"Subject": "s", "Html": "x" * 512_000}}, "BadRequestException"),
        ({"TemplateName": "new", "TemplateContent": []}, "SerializationException"),
        ({"TemplateName": 7, "TemplateContent": HELLO}, "SerializationException"),
    ],
)
def test_what_cannot_be_created(content, expected):
    """With the code that SES has for it."""
    account = SimulatedAccount(templates={"welcome": HELLO})
    assert code(account, "POST", TEMPLATES, content) == expected


def test_a_region_holds_so_many_templates(monkeypatch):
    """One more is over the limit."""
    monkeypatch.setattr("tanksend.testing._template_control.MAX_TEMPLATES", 1)
    account = SimulatedAccount()
    answers = [code(account, "POST", TEMPLATES, {"TemplateName": name, "TemplateContent": HELLO}) for name in "ab"]
    assert answers == [None, "LimitExceededException"]


def test_the_list_comes_in_pages():
    """Each page tells how to ask for the next one."""
    account = SimulatedAccount(templates={f"t{number}": HELLO for number in range(5)})
    ask(account, "POST", TEMPLATES, {"TemplateName": "z", "TemplateContent": HELLO}, now=1.5)
    found, query = [], "PageSize=2"
    while query:
        status, page = ask(account, "GET", TEMPLATES, query=query)
        assert status == 200
        found += page["TemplatesMetadata"]
        query = f"PageSize=2&NextToken={page['NextToken']}" if "NextToken" in page else ""
    assert [each["TemplateName"] for each in found] == ["t0", "t1", "t2", "t3", "t4", "z"]
    assert found[-1]["CreatedTimestamp"] == 1_800_000_001.5
    assert ask(account, "GET", TEMPLATES)[1].keys() == {"TemplatesMetadata"}


@pytest.mark.parametrize("query", ["PageSize=0", "PageSize=101", "PageSize=x", "NextToken=!"])
def test_a_page_that_cannot_be(query):
    """It is a bad request."""
    assert ask(SimulatedAccount(), "GET", TEMPLATES, query=query)[0] == 400


def test_rendering_for_a_test():
    """The whole mail comes back, for Python's own parser to read."""
    account = SimulatedAccount(templates={"welcome": HELLO, "short": {"Subject": "S\nx"}})
    data = json.dumps({"name": "김철수 & Co", "offer": "<b>now</b>"})
    status, found = ask(account, "POST", f"{TEMPLATES}/welcome/render", {"TemplateData": data})
    mail = message_from_string(found["RenderedTemplate"], policy=policy.default)
    assert (status, mail["Subject"]) == (200, "Hello 김철수 & Co")
    assert mail.get_body(("plain",)).get_content() == "Dear 김철수 & Co, <b>now</b>\n"
    assert mail.get_body(("html",)).get_content() == "<p>Dear 김철수 & Co, <b>now</b></p>\n"
    assert ask(account, "POST", f"{TEMPLATES}/short/render", {"TemplateData": "{}"})[0] == 200


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ('{"name": "x"}', "Attribute 'offer' is not present in the rendering data."),
        ("", "Template rendering data is invalid."),
        ("[]", "Template rendering data is invalid."),
        ("{", "Template rendering data is invalid."),
        ("[" * 100_000, "Template rendering data is invalid."),
    ],
)
def test_a_rendering_that_fails(data, text):
    """Here it is an answer."""
    account = SimulatedAccount(templates={"welcome": HELLO})
    assert ask(account, "POST", f"{TEMPLATES}/welcome/render", {"TemplateData": data}) == (400, {"message": text})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", ""),
        ("POST", "/a"),
        ("GET", "/"),
        ("GET", "/a/b"),
        ("GET", "/a/render"),
        ("GET", "x"),
        ("POST", "/a/b/render"),
    ],
)
def test_paths_that_ses_does_not_know(method, path):
    """They are no operation."""
    assert code(SimulatedAccount(), method, TEMPLATES + path) == "UnknownOperationException"


def test_denied_and_paced():
    """Each operation has an action and a pace of its own; reading one is allowed 50 times as often."""
    account = SimulatedAccount(templates={"welcome": HELLO}, control_rate=1, deny=["ses:DeleteEmailTemplate"])
    assert code(account, "DELETE", f"{TEMPLATES}/welcome") == "AccessDeniedException"
    assert [code(account, "GET", TEMPLATES, monotonic=now) for now in (0.0, 0.5)] == [None, "TooManyRequestsException"]
    assert [code(account, "GET", f"{TEMPLATES}/welcome", monotonic=now) for now in (0.0, 0.01, 0.025)] == [
        None, "TooManyRequestsException", None,
    ]  # fmt: skip


# --- the store ---


def test_the_store_takes_templates_and_mappings():
    """A test seeds it by either, at the start or later."""
    account = SimulatedAccount(templates={"a": Template(subject="s", text="t"), "b": {"Subject": "s", "Html": "h"}})
    account.templates["c"] = Template(subject="s", html="h")
    assert [*account.templates] == ["a", "b", "c"]
    assert account.templates["a"].content == {"Subject": "s", "Text": "t"}
    del account.templates["a"]
    assert len(account.templates) == 2
    assert repr(account.templates) == "<TemplateStore 2>"
    assert repr(account.templates["b"]) == "<StoredTemplate b>"
    assert isinstance(account.templates["b"], StoredTemplate)
    store = TemplateStore({"x": HELLO})
    assert SimulatedSES(templates=store).templates is store


def test_the_store_refuses_what_is_no_template():
    """When it is put in."""
    with pytest.raises(ValueError, match="not closed"):
        SimulatedAccount(templates={"a": {"Subject": "{{#if x}}"}})


# --- SendEmail ---


def test_a_stored_template_is_rendered():
    """The inbox has what the reader sees, and what it was made of."""
    account = SimulatedAccount(templates={"welcome": HELLO})
    template = {
        "TemplateName": "welcome",
        "TemplateData": json.dumps({"name": "Ann", "offer": "<b>now</b>"}),
        "Headers": [{"Name": "X-A", "Value": "1"}],
        "Attachments": [{"FileName": "a.pdf", "RawContent": "AAAA"}],
    }
    status, answer = send(account, template, EmailTags=[{"Name": "campaign", "Value": "news"}])
    (item,) = account.inbox
    assert (status, answer) == (200, {"MessageId": item.message_id})
    assert (item.subject, item.text, item.html) == ("Hello Ann", "Dear Ann, <b>now</b>", "<p>Dear Ann, <b>now</b></p>")
    assert (item.template, item.data, item.headers) == ("welcome", {"name": "Ann", "offer": "<b>now</b>"}, {"X-A": "1"})
    assert (item.tags, item.entry, item.failure) == ({"campaign": "news"}, None, None)
    assert item.content["Content"]["Template"]["Attachments"][0]["FileName"] == "a.pdf"
    assert account.counts.by_action == {"ses:SendTemplatedEmail": 1}
    assert not account.events


def test_a_template_by_its_arn_and_one_inline():
    """Both are found; an inline one has no name, and may lack a part."""
    account = SimulatedAccount(templates={"welcome": HELLO})
    data = json.dumps({"name": "Ann", "offer": "x"})
    arn = "arn:aws:ses:us-east-1:123456789012:template/welcome"
    assert send(account, {"TemplateArn": arn, "TemplateData": data})[0] == 200
    assert send(account, {"TemplateContent": {"Subject": "{{name}}", "Text": "hi"}, "TemplateData": data})[0] == 200
    assert send(account, {"TemplateContent": {"Subject": "No data", "Html": "hi"}})[0] == 200
    first, second, third = account.inbox
    assert (first.template, first.subject) == ("welcome", "Hello Ann")
    assert (second.template, second.subject, second.text, second.html) == (None, "Ann", "hi", None)
    assert (third.subject, third.text, third.html) == ("No data", None, "hi")


def test_a_missing_variable_is_accepted_and_then_dropped():
    """It has an id and is charged; an event for each recipient is all that tells."""
    account = SimulatedAccount(templates={"welcome": HELLO}, daily_quota=10)
    status, answer = send(
        account, {"TemplateName": "welcome", "TemplateData": '{"name": "Ann"}'}, to=["a@x.org", "b@x.org"]
    )
    text = "Attribute 'offer' is not present in the rendering data."
    (item,) = account.inbox
    assert (status, answer) == (200, {"MessageId": item.message_id})
    assert (item.failure, item.subject, item.text, item.html) == (text, "Hello {{name}}", None, None)
    assert [(event.kind, event.recipient, event.reason) for event in account.events] == [
        ("Rendering Failure", "a@x.org", text),
        ("Rendering Failure", "b@x.org", text),
    ]
    assert account.sent_last_24_hours(0.0) == 2
    assert (account.counts.rendering_failures, account.counts.accepted) == (1, 1)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ({"TemplateName": "nobody"}, "NotFoundException"),
        ({"TemplateName": "welcome", "TemplateData": "{"}, "BadRequestException"),
        ({"TemplateName": "welcome", "TemplateData": "[]"}, "BadRequestException"),
        ({"TemplateName": "welcome", "TemplateData": {}}, "SerializationException"),
        ({"TemplateName": "welcome", "TemplateData": "x" * 262_145}, "ValidationException"),
        ({"TemplateName": "welcome", "TemplateContent": HELLO}, "BadRequestException"),
        ({"TemplateData": "{}"}, "BadRequestException"),
        ({"TemplateContent": {}}, "BadRequestException"),
        ({"TemplateContent": {"Subject": "s", "Text": "{{#if a}}x{{/if}}"}}, "BadRequestException"),
        ({"TemplateContent": {"Subject": "s", "Text": "x" * 1_048_576}}, "BadRequestException"),
        ({"TemplateName": "welcome", "Headers": [{"Name": "X A", "Value": ""}]}, "ValidationException"),
        ({"TemplateName": "welcome", "Attachments": [{"FileName": "a.exe"}]}, "BadRequestException"),
    ],
)  # fmt: skip
def test_templated_sends_that_break_a_rule(template, expected):
    """Each is refused with its code, and nothing is taken."""
    account = SimulatedAccount(templates={"welcome": HELLO})
    assert code(account, "POST", SEND, body(template)) == expected
    assert not account.inbox


def test_the_sender_of_a_template_and_its_permission():
    """It has a text of its own where the sender is missing, and an action of its own."""
    account = SimulatedAccount(templates={"welcome": HELLO}, deny=["ses:SendTemplatedEmail"])
    content = body({"TemplateName": "welcome"})
    assert code(account, "POST", SEND, content) == "AccessDeniedException"
    account.deny.clear()
    assert ask(account, "POST", SEND, content | {"FromEmailAddress": ""}) == (
        400,
        {"message": "Source cannot be empty"},
    )


def test_big_runs_keep_no_data():
    """Subject and failure are there, content is not."""
    account = SimulatedAccount(templates={"welcome": HELLO}, keep_bodies=False)
    send(account, {"TemplateName": "welcome", "TemplateData": '{"name": "Ann", "offer": 1}'})
    (item,) = account.inbox
    assert (item.subject, item.template) == ("Hello Ann", "welcome")
    assert (item.content, item.data, item.text, item.html, item.headers) == (None, None, None, None, {})

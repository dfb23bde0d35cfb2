from __future__ import annotations

import copy
import datetime as dt
import json
import pickle
import subprocess
import sys
from decimal import Decimal
from types import MappingProxyType

import attrs
import pytest
from hypothesis import given, strategies as st

from tanksend import Attachment, Message, Template, Unsubscribe
from tanksend._messages import MAX_INLINE_BYTES, TemplateData
from tanksend.exceptions import InvalidMessageError, Problem

GREETING = Template(subject="Hi {{name}}", text="Dear {{name}}, your plan is {{plan}}.", html="<p>Dear {{name}}")
STORED = Template(name="welcome")
MADE = b"From: a@example.com\r\nTo: kim@example.com\r\nSubject: Hi\r\n\r\nHello"


def make(template=GREETING, **fields):
    """A templated message with good data."""
    return Message.from_template(
        template, **{"to": "kim@example.com", "data": {"name": "Kim", "plan": "Pro"}, **fields}
    )


def faults(message):
    """The fields that `check` names."""
    return [problem.field for problem in message.check()]


def needs(text, **data):
    """What a template of that text lacks."""
    return Template(subject="", text=text).missing(data)


# --- a template


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (ValueError, {}),
        (ValueError, {"name": "welcome", "subject": "Hi"}),
        (ValueError, {"name": "welcome", "text": "Hi"}),
        (ValueError, {"name": "welcome", "html": "Hi"}),
        (ValueError, {"subject": "Hi"}),
        (ValueError, {"text": "Hi", "html": "Hi"}),
        (TypeError, {"name": 1}),
        (TypeError, {"subject": b"Hi", "text": "Hi"}),
        (TypeError, {"subject": "Hi", "text": b"Hi"}),
        (TypeError, {"subject": "Hi", "html": 1}),
    ],
)
def test_a_template_has_a_name_or_a_content(error, arguments):
    """Both, neither and half of one are mistakes of the program."""
    with pytest.raises(error) as caught:
        Template(**arguments)
    assert "Hi" not in str(caught.value)


def test_equal_templates_are_one():
    """By value, whatever has been found out about one of them."""
    other = Template(subject="Hi {{name}}", text=GREETING.text, html=GREETING.html)
    GREETING.missing({})
    assert GREETING == other
    assert 1 == len({GREETING, other})
    assert GREETING != STORED
    assert Template(subject="", text="x") != Template(subject="", html="x")


@pytest.mark.parametrize("again", [lambda t: pickle.loads(pickle.dumps(t)), copy.copy, copy.deepcopy])  # noqa: S301
@pytest.mark.parametrize("template", [STORED, GREETING])
def test_a_template_survives_pickling_and_copying(template, again):
    """With what was found out, and without."""
    for _ in range(2):
        same = again(template)
        assert template == same
        assert hash(template) == hash(same)
        assert template.missing({}) == same.missing({})
        assert template.check() == same.check() == ()


def test_a_template_is_found_again_in_another_process():
    """A hash that was kept does not travel: texts have another one there."""
    hash(GREETING)
    program = f"import pickle, tanksend; t = pickle.loads({pickle.dumps(GREETING)!r}); print(t in {{tanksend.Template"
    program += f"(subject={GREETING.subject!r}, text={GREETING.text!r}, html={GREETING.html!r})}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "True\n" == done.stdout


def test_no_content_is_shown():
    """A name is shown where it is one."""
    assert "<Template inline text html>" == repr(GREETING)
    assert "<Template inline text>" == repr(Template(subject="secret", text="secret"))
    assert "<Template inline html>" == repr(Template(subject="secret", html="secret"))
    assert "<Template welcome>" == repr(STORED)
    assert "<Template stored>" == repr(Template(name="kim@example.com"))


@pytest.mark.parametrize("name", ["a", "A-b_9", "x" * 64])
def test_good_names(name):
    """Letters, digits, underscore and hyphen, 64 at most."""
    assert () == Template(name=name).check()


@pytest.mark.parametrize("name", ["", "x" * 65, "two words", "a/b", "a.b", "이름", "a\n"])
def test_bad_names(name):
    """Refused before SES does."""
    assert ["name"] == [problem.field for problem in Template(name=name).check()]
    assert ["template.name"] == faults(make(Template(name=name)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a\n{{name", "{{ without its }} on line 2"),
        ("{{name}", "{{ without its }} on line 1"),
        ("{{{name}}", "{{ without its }} on line 1"),
        ("{{na{{me}}", "{{ without its }} on line 1"),
        ("{{!-- never ends }}", "{{ without its }} on line 1"),
        ("{{a}}\n\n{{ }}", "empty {{}} on line 3"),
        ("x\n{{#if name}}y{{/if}}", "more than variables on line 2"),
        ("{{upper name}}", "more than variables on line 1"),
        ("{{> header}}", "more than variables on line 1"),
        ("{{a}}{{else}}", "more than variables on line 1"),
        ("{{a\n}}\n{{else}}{{b c}}", "more than variables on line 3"),
    ],
)
def test_what_ses_cannot_read_in_an_inline_template(text, reason):
    """Told by part and line, and once for each part."""
    template = Template(subject="Hi", text="fine {{a}}", html=text)
    problem, *others = template.check()
    assert "html" == problem.field
    assert reason in problem.reason
    assert not others


@pytest.mark.parametrize(
    "text",
    ["", "no tags } }} { }", "{{a}} {{ a }} {{{a}}} {{&a}} {{~a~}}", "{{! a note }}{{!-- {{b}} --}}", "\\{{not a tag}",
     "a{b:c{{x}}}", "{{이름}} {{a.b-c.d}}"],
)  # fmt: skip
def test_what_ses_can_read(text):
    """Variables and comments; what only looks like a tag is text."""
    assert () == Template(subject="Hi", text=text).check()
    assert () == Template(subject="Hi", text=text).check_stored()


@pytest.mark.parametrize(
    "text",
    [
        "{{#if a}}x{{else}}y{{/if}}",
        "{{#each a}}{{#if b}}{{c}}{{/if}}{{/each}}",
        "{{^a}}x{{/a}}",
        "{{#*inline 'x'}}y{{/inline}}{{> x}}",
        "{{#each\n  a}}x{{/each}}{{~#if\tb~}}y{{~/if~}}",
        "{{upper a}}{{~! not {{this}} ~}}",
        "{{#*}}{{/}}",
        "{{^}}",
        "{{upper a}}",
    ],
)
def test_a_stored_template_may_use_all_of_handlebars(text):
    """As far as its blocks are closed."""
    assert () == Template(subject="Hi", text=text).check_stored()
    assert Template(subject="Hi", text=text).check()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{#if a}}", "opens 1 block(s)"),
        ("{{#if a}}{{/each}}", "closes a block that is not open on line 1"),
        ("\n{{/if}}", "closes a block that is not open on line 2"),
        ("{{#if a}}{{", "without its }} on line 1"),
        ("{{}}", "empty"),
    ],
)
def test_blocks_of_a_stored_template_are_closed(text, reason):
    """SES would refuse to store it, or fail to render it later."""
    (problem,) = Template(subject="Hi", text=text).check_stored()
    assert ("text", True) == (problem.field, reason in problem.reason)


def test_other_problems_of_a_content():
    """Control characters in the subject, halves of characters, and size."""
    assert [Problem("subject", "has a control character or line break")] == [*Template(subject="a\nb", text="").check()]
    assert ["html"] == [problem.field for problem in Template(subject="", html="\ud83d").check()]
    assert () == Template(subject="", text="x" * 512_000).check_stored()
    assert ["content"] == [problem.field for problem in Template(subject="", text="x" * 512_001).check_stored()]
    assert () == Template(subject="", text="김" * 300_000).check()
    large = Template(subject="", text="김" * 350_000)
    assert ["content"] == [problem.field for problem in large.check()]
    assert ["template.content"] == faults(make(large))


# --- what it needs


def test_a_variable_outside_of_blocks_is_needed():
    """In the order of the template, each once, however it is written."""
    assert ("b", "a", "이름") == needs("{{b}} {{ a }} {{{b}}} {{&a}} {{~이름~}}")
    assert () == needs("{{b}} {{a}}", a="", b=0)
    assert ("name", "plan") == GREETING.missing({})
    assert ("plan",) == GREETING.missing({"name": "Kim", "other": 1})
    assert () == STORED.missing({})


def test_none_is_as_good_as_missing():
    """SES renders no null."""
    assert ("a",) == needs("{{a}}", a=None)


def test_inside_of_a_block_nothing_is_certain():
    """It depends on the data what is looked up there, and whether at all."""
    assert ("c",) == needs("{{#if a}}{{b}}{{else}}{{d}}{{/if}}{{c}}{{#each e}}{{f}}{{#if g}}{{h}}{{/if}}{{i}}{{/each}}")
    assert ("c",) == needs("{{^a}}{{b}}{{/a}}{{c}}")


@pytest.mark.parametrize(
    "tag",
    ["{{this}}", "{{.}}", "{{../a}}", "{{@index}}", "{{upper a}}", "{{> a}}", "{{! a}}", "{{!-- {{a}} --}}", "\\{{a}}",
     "{{[a b]}}", "{{else}}", "{{true}}", "{{null}}", "{{1}}", "{{'a'}}", "{{amazonSESUnsubscribeUrl}}", "{{a", "{{}}"],
)  # fmt: skip
def test_what_is_no_variable_for_certain(tag):
    """Left to SES."""
    assert () == needs(tag)


@pytest.mark.parametrize("tag", ["{{@root.a}}", "{{this.a}}", "{{./a}}"])
def test_a_variable_by_its_full_path(tag):
    """The root of the data, outside of blocks."""
    assert ("a",) == needs(tag)
    assert () == needs(tag, a=1)


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        ({}, ("a.b.c",)),
        ({"a": {}}, ("a.b.c",)),
        ({"a": {"b": {"c": None}}}, ("a.b.c",)),
        ({"a": {"b": {"c": 0}}}, ()),
        ({"a": MappingProxyType({"b": {"c": ""}})}, ()),
        ({"a": {"b": "text"}}, ()),  # an attribute of a text, which SES may know
        ({"a": {"b": dt.date(2026, 1, 1)}}, ("a.b.c",)),
        ({"a": []}, ("a.b.c",)),
    ],
)
def test_a_variable_inside_of_another(data, missing):
    """Followed as far as it goes."""
    assert missing == needs("{{a.b.c}}", **data)


def test_an_item_of_a_list():
    """By its number, which may be the name of a value, too."""
    assert () == needs("{{a.1.b}}", a=[0, {"b": 1}])
    assert () == needs("{{a.2026.b}}", a={2026: {"b": 1}})
    assert () == needs("{{a.length}}{{a.size}}", a=[])
    assert ("a.2027",) == needs("{{a.2027}}", a={2026: 1})
    assert (f"a.{'9' * 5_000}",) == needs(f"{{{{a.{'9' * 5_000}}}}}", a=[1])
    assert ("a.1.b",) == needs("{{a.1.b}}", a=[0])


@given(st.text(st.sampled_from("{}#/!~&-\\ \nab.^>"), max_size=40), st.booleans())
def test_no_text_is_too_strange_to_look_at(text, stored):
    """Whatever is in it: problems, and no exception."""
    template = Template(subject=text, html=text)
    assert all(name.replace(".", "").replace("-", "") for name in template.missing({}))
    assert isinstance(template.check_stored() if stored else template.check(), tuple)
    assert isinstance(template.data_problems({"a": "\n"}), tuple)


@given(st.dictionaries(st.sampled_from("abcd"), st.none() | st.text(max_size=3), max_size=4))
def test_what_is_missing_is_what_is_not_there(data):
    """The quick way and the long way agree."""
    assert tuple(name for name in "abc" if data.get(name) is None) == needs("{{a}}{{b}}{{c}}", **data)
    long_way = needs("{{a}}{{b}}{{c}}{{x.y}}", **data, x={"y": 1})
    assert long_way == needs("{{a}}{{b}}{{c}}", **data)


# --- a message


def test_a_templated_message():
    """Its content is the template's."""
    message = make(cc="b@example.com", tags={"a": "b"}, unsubscribe=Unsubscribe(url="https://example.com/u"))
    assert (GREETING, {"name": "Kim", "plan": "Pro"}) == (message.template, dict(message.data))
    assert ("", None, None) == (message.subject, message.text, message.html)
    assert () == message.check()
    assert () == make().check()
    assert () == make(STORED, data=None).check()
    assert 1 == len({make(), make()})
    assert make() != make(data={"name": "Park", "plan": "Pro"})
    assert "<Message recipients=1 attachments=0>" == repr(make())


@pytest.mark.parametrize(
    ("error", "build"),
    [
        (ValueError, lambda: make(subject="Hi")),
        (ValueError, lambda: make(text="Hi")),
        (ValueError, lambda: make(html="Hi")),
        (ValueError, lambda: Message("a@example.com", "Hi", text="Hi", data={"name": "Kim"})),
        (ValueError, lambda: Message("a@example.com", "Hi", data={"name": "Kim"})),
        (ValueError, lambda: Message("a@example.com", "Hi", data=TemplateData({}))),
        (TypeError, lambda: make(None)),
        (TypeError, lambda: make("welcome")),
        (TypeError, lambda: Message("a@example.com", "", template="welcome")),
        (TypeError, lambda: make(data=[("name", "Kim")])),
        (TypeError, lambda: Message("a@example.com", "Hi", mime=b"bytes")),
        (ValueError, lambda: Message.from_mime(MADE, text="Hi")),
        (ValueError, lambda: Message.from_mime(MADE, html="Hi")),
        (ValueError, lambda: Message.from_mime(MADE, template=STORED)),
    ],
)
def test_mistakes_of_the_program(error, build):
    """Told where they are made, without the data."""
    with pytest.raises(error) as caught:
        build()
    assert "Kim" not in str(caught.value)


@pytest.mark.parametrize("again", [lambda m: pickle.loads(pickle.dumps(m)), copy.copy, copy.deepcopy])  # noqa: S301
def test_a_templated_message_survives_pickling_and_copying(again):
    """Template and data with it, whether its JSON was made or not."""
    message = make()
    for _ in range(2):
        same = again(message)
        assert message == same
        assert hash(message) == hash(same)
        assert attrs.asdict(message, recurse=False) == attrs.asdict(same, recurse=False)
        assert () == same.check()


def test_evolve_makes_another_message():
    """Data that did not change is not written anew."""
    message = make()
    assert () == message.check()
    other = attrs.evolve(message, to="b@example.com")
    assert other.data is message.data
    assert make(to="b@example.com") == other
    assert make(STORED) == attrs.evolve(message, template=STORED)


def test_data_cannot_be_changed():
    """Neither through the caller's mapping nor through the message."""
    data = {"name": "Kim", "plan": "Pro"}
    message = make(data=data)
    data["name"] = "Park"
    assert "Kim" == message.data["name"]
    with pytest.raises(TypeError):
        message.data["name"] = "Park"
    assert "<TemplateData 2 values>" == repr(message.data)
    assert '{"name":"Kim","plan":"Pro"}' == message.data.encoded
    assert message.data.encoded is message.data.encoded
    assert ["name", "plan"] == list(message.data)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), values, max_size=4))
def test_json_carries_the_data(data):
    """Whatever JSON has, the values come out as they went in."""
    try:
        encoded = TemplateData(data).encoded
    except InvalidMessageError:
        assert "\\ud" in json.dumps(data)  # half a character in a nested name
    else:
        assert data == json.loads(encoded)


def nested(depth):
    """Lists in lists."""
    inside: list[object] = []
    for _ in range(depth):
        inside = [inside]
    return inside


itself: list[object] = []
itself.append(itself)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (dt.date(2026, 11, 24), "cannot carry date"),
        (Decimal(1), "cannot carry Decimal"),
        (b"Kim", "cannot carry bytes"),
        ({"Kim"}, "cannot carry set"),
        ([1, None, {}, [], "a", 1.5, {"Kim"}], "cannot carry set"),
        ({"a": b"", "b": Decimal(1)}, "cannot carry Decimal, bytes"),
        ([[b"Kim"]], "cannot carry list"),
        (float("nan"), "not finite"),
        (float("inf"), "not finite"),
        ([10**5_000], "too long"),
        (itself, "holds itself"),
        (nested(100_000), "nested too deeply"),
        ("Kim\ud83d", "surrogate"),
        (["\ud83d"], "surrogate"),
    ],
)
def test_undecodable_template_data(value, reason):
    """One problem that names the value, and no exception later."""
    message = make(data={"name": value, "plan": "Pro"})
    problem, *others = message.check()
    assert "data[name]" == problem.field
    assert reason in problem.reason
    assert "Kim" not in problem.reason
    assert not others
    with pytest.raises(InvalidMessageError) as caught:
        message.data.encoded  # noqa: B018
    assert caught.value.__cause__ is None


def test_a_name_in_the_wrong_place_is_not_repeated():
    """What does not look like a name may be a person's."""
    data = {"name": "Kim", "plan": "Pro", "kim@example.com": b"", (1, 2): "", "a b": {"x"}}
    fields = [problem.field for problem in make(data=data).check()]
    assert ["data[number 3]", "data[number 4]", "data[number 5]"] == fields
    assert "cannot carry tuple" in make(data={(1, 2): ""}).check()[0].reason
    assert "cannot carry bytes" in make(data={b"a": ""}).check()[0].reason


def test_names_that_are_no_text_are_written_as_json_would():
    """A row with cells too many has None for a name."""
    assert '{"name":"Kim","plan":"Pro","null":["x"]}' == make(data={**make().data, None: ["x"]}).data.encoded


def test_a_value_that_is_bad_only_together(monkeypatch):
    """Then the data as a whole is named."""
    data = TemplateData({"a": b""})
    monkeypatch.setattr("tanksend._messages._templates._why_unencodable", lambda _name, _value: None)
    with pytest.raises(InvalidMessageError) as caught:
        data.encoded  # noqa: B018
    assert "data" == caught.value.field


def test_missing_variables_are_found_before_sending():
    """SES would take the mail, and drop it."""
    assert [Problem("data[plan]", "is missing, and the template needs it")] == [*make(data={"name": "Kim"}).check()]
    assert ["data[name]", "data[plan]"] == faults(make(data=None))
    assert () == make(STORED, data=None).check()


@pytest.mark.parametrize("value", ["Kim\nBcc: x@example.com", "a\rb", "\x00", "a\u2028b"])
def test_no_line_break_gets_into_the_subject(value):
    """A variable of the subject may not add a header."""
    problems = make(data={"name": value, "plan": "Pro"}).check()
    assert ["data[name]"] == [problem.field for problem in problems]
    assert "Bcc" not in problems[0].reason
    assert () == make(data={"name": "Kim", "plan": value}).check()
    assert () == make(data={"name": "Kim\u00a0Lee", "plan": 1}).check()
    assert () == make(data={"name": 7, "plan": 1}).check()


@pytest.mark.parametrize(
    ("subject", "data", "path"),
    [
        ("{{a.b}}", {"a": {"b": "x\ny", "c": "fine\n"}}, "a.b"),
        ("{{a.1.b}}", {"a": ["", {"b": "x\ny"}]}, "a.1.b"),
        ("{{a}}", {"a": ["x", {"b": ("\r",)}]}, "a"),
        ("{{a}}", {"a": [itself, itself, "\r"]}, "a"),
        ("{{a}}", {"a": [[itself, "\r"]]}, "a"),
        ("{{#if a}}{{a.b}}{{/if}}", {"a": {"b": "\n"}}, "a.b"),
    ],
)
def test_no_line_break_gets_into_the_subject_from_within(subject, data, path):
    """Nor one of a value inside of another, or of all that is in one."""
    template = Template(subject=subject, text="{{a}}")
    assert [f"data[{path}]"] == [problem.field for problem in template.data_problems(data)]
    assert not (TemplateData(data).json and template.suits(TemplateData(data)))
    fine = {"a": [{"b": "x"}, {"b": "y", "c": "\n"}]} if "1" in path else {"a": {"b": "x"}}
    assert () == template.data_problems(fine)


def test_data_has_a_limit():
    """262,144 characters of JSON, and 1 MB with an inline template."""
    longest = "x" * (262_144 - len('{"name":"Kim","plan":""}'))
    assert () == make(data={"name": "Kim", "plan": longest}).check()
    assert ["data"] == faults(make(data={"name": "Kim", "plan": longest + "x"}))
    assert ["data"] == faults(make(STORED, data={"name": "Kim", "plan": longest + "x"}))
    large = Template(subject="", text="x" * (MAX_INLINE_BYTES - 100))
    assert () == make(large, data={"a": "b"}).check()
    assert ["data"] == faults(make(large, data={"a": "x" * 100}))
    assert () == make(STORED, data={"a": "김" * 262_000}).check()


def test_other_rules_hold_as_for_any_message():
    """Headers, tags, attachments and the rest."""
    wrong = make(headers={"X-SES-A": "b"}, tags={"a b": "c"}, attachments=[Attachment("a.exe", b"")], key="")
    assert ["key", "headers[X-SES-A]", "tags[number 1]", "attachments[0].name"] == faults(wrong)
    assert ["to"] == faults(make(to=()))


def test_an_invitation_cannot_go_with_a_template():
    """Its part stands beside the text, where SES puts none."""
    invitation = Attachment("invite.ics", b"BEGIN:VCALENDAR", content_type="text/calendar", method="REQUEST")
    assert "attachments[0]" in faults(make(attachments=[invitation]))

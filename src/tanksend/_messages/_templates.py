"""
Content that SES makes of a template and each recipient's data.

SES accepts a templated mail whose data lacks a variable, and then drops it: nobody hears of it but who listens for its
"Rendering Failure" events. So what a template needs is read out of it here, once, and held against each message's data.

SES's templates are Handlebars. Only what is certain counts as needed: a variable outside of all blocks. Inside of
``{{#if}}`` or ``{{#each}}`` it depends on the data whether, and on what, a variable is looked up. Names that Handlebars
gives a meaning of its own (``@root``, ``../name``, ``this``) and helpers with arguments are left to SES.

Source: Amazon SES Developer Guide, "Using templates to send personalized email with the Amazon SES API" and "Advanced
email personalization"; the alphabet of names from the resource type AWS::SES::Template.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import attrs

from .._addresses import has_control
from ..exceptions import InvalidMessageError, Problem
from ._extras import must_be, wrong_type
from ._rules import HALF_PAIR, is_encodable

MAX_DATA_CHARACTERS: Final = 262_144  # SES API v2, EmailTemplateData
MAX_STORED_BYTES: Final = 512_000  # 500 KB, text and HTML together
MAX_INLINE_BYTES: Final = 1_048_576  # 1 MB, the template and its data together
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PARTS: Final = ("subject", "text", "html")

_PATH = re.compile(r"[^\W\d][\w$-]*(?:\.[\w$-]+)*")
_OWN_WORDS: Final = frozenset({"this", "else", "true", "false", "null", "undefined"})
_OF_A_LIST: Final = frozenset({"length", "size"})  # one in Handlebars, the other in its Java form
_NUMBER = re.compile(r"[0-9]{1,9}")
_FROM_ROOT = re.compile(r"(?:@root\.|this\.|\./)(?=.)")
# List management puts the address in after the rendering.
_OF_SES: Final = "amazonSESUnsubscribeUrl"
# What may be shown of the caller's data: a name as templates have them, and not a whole sentence in the wrong place.
_SHOWN = re.compile(r"[A-Za-z_][\w.-]{0,63}", re.ASCII)


# --- data ------------------------------------------------------------------------------------------------------------


@functools.cache
def _writers() -> tuple[Callable[[str], str], Callable[[object], str]]:
    """What writes a text, and anything, as JSON; loaded late, so that `import tanksend` stays quick."""
    from json.encoder import JSONEncoder, encode_basestring

    return encode_basestring, JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class TemplateData(Mapping[str, Any]):
    """
    Values for a template's variables: a copy that nobody can change, and its JSON.

    That is made at once: what is sent is what the values were then, whatever is done later to those that can change. A
    class of its own, because a plain message then carries nothing more than one that all of them share.
    """

    __slots__ = ("_values", "json")

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)
        self.json = _encode(self._values) if self._values else "{}"
        """None where JSON, or UTF-8, cannot carry them; `encoded` says why."""

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401  (whatever the caller put in)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __reduce__(self) -> tuple[type[TemplateData], tuple[dict[str, Any]]]:
        return TemplateData, (self._values,)

    def __repr__(self) -> str:
        return f"<TemplateData {len(self._values)} values>"

    @property
    def encoded(self) -> str:
        """
        The JSON.

        Raises:
            InvalidMessageError: JSON, or UTF-8, cannot carry it; its problems name the values.
        """
        if self.json is None:
            raise InvalidMessageError(problems=_unencodable(self._values))
        return self.json

    @property
    def values_by_name(self) -> dict[str, Any]:
        """The values themselves, for those who only look: quicker than through a mapping."""
        return self._values


def _encode(values: Mapping[str, Any]) -> str | None:
    """The values as JSON; None where that, or UTF-8, cannot carry them."""
    quoted, whole = _writers()
    try:
        # Texts alone, the usual case, in half the time.
        text = "{" + ",".join([f"{quoted(name)}:{quoted(value)}" for name, value in values.items()]) + "}"
    except TypeError:
        try:
            text = whole(values)
        except (TypeError, ValueError, RecursionError):
            return None
    return text if is_encodable(text) else None


def _unencodable(values: Mapping[str, Any]) -> list[Problem]:
    found = [
        Problem(_field(name, number), reason)
        for number, (name, value) in enumerate(values.items(), 1)
        if (reason := _why_unencodable(name, value))
    ]
    return found or [Problem("data", "cannot be written as JSON")]


def _why_unencodable(name: object, value: object) -> str | None:
    try:
        text = _writers()[1]({name: value})
    except TypeError:
        return f"undecodable template data: JSON cannot carry {_kinds(name, value)}"
    except RecursionError:
        return "undecodable template data: is nested too deeply"
    except ValueError:
        return "undecodable template data: holds itself, or a number that is not finite or too long for JSON"
    return None if is_encodable(text) else HALF_PAIR


def _kinds(name: object, value: object) -> str:
    """The types that are to blame, as far as one look tells."""
    blamed = name if not isinstance(name, str) else value
    inside = blamed.values() if isinstance(blamed, dict) else blamed if isinstance(blamed, list | tuple) else ()
    strangers = {type(each).__name__ for each in inside if not _is_carried(each)} or {type(blamed).__name__}
    return ", ".join(sorted(strangers))


def _is_carried(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | dict | list | tuple)


def _field(name: object, number: int) -> str:
    """How a problem calls the value *name*, which is the one *number* from 1."""
    return f"data[{name}]" if isinstance(name, str) and _SHOWN.fullmatch(name) else f"data[number {number}]"


NO_DATA: Final = TemplateData({})


def read_only_data(value: Mapping[str, Any]) -> TemplateData:
    """A copy of *value* that nobody can change."""
    if isinstance(value, TemplateData):
        return value
    if not isinstance(value, Mapping):
        raise wrong_type("data", "mapping", value)
    return TemplateData(value) if value else NO_DATA


# --- what a template needs -------------------------------------------------------------------------------------------


@attrs.frozen
class _Tag:
    """One ``{{…}}``: what is in it, without white space control, and the line it begins on."""

    inner: str
    line: int

    @property
    def is_comment(self) -> bool:
        return self.inner.startswith("!")

    @property
    def is_path(self) -> bool:
        """Whether it is the name of something, and nothing more."""
        return self.inner != "else" and _PATH.fullmatch(self.inner.removeprefix("&").strip()) is not None

    @property
    def variable(self) -> str | None:
        """The path of a variable of the data, where that is certain."""
        text = _FROM_ROOT.sub("", self.inner.removeprefix("&").strip(), count=1)
        usable = _PATH.fullmatch(text) and text.partition(".")[0] not in _OWN_WORDS and text != _OF_SES
        return text if usable else None


class _UnbalancedError(ValueError):
    """Braces that open and do not close, on line `line`."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


def _tags(text: str) -> Iterator[_Tag]:
    """The tags in *text*, from left to right, each character looked at once."""
    end, line = 0, 1
    while (start := text.find("{{", end)) >= 0:
        line += text.count("\n", end, start)
        if start and text[start - 1] == "\\":  # Handlebars writes these two as they are
            end = start + 2
            continue
        opening, closing = _braces(text, start)
        end = text.find(closing, start + len(opening))
        inner = text[start + len(opening) : end]
        if end < 0 or ("{{" in inner and not inner.startswith(("!", "~!"))):
            raise _UnbalancedError(line)
        end += len(closing)
        yield _Tag(inner.strip().strip("~").strip(), line)
        line += text.count("\n", start, end)


def _braces(text: str, start: int) -> tuple[str, str]:
    if text.startswith("{{{", start):
        return "{{{", "}}}"
    return "{{", "--}}" if text.startswith(("{{!--", "{{~!--"), start) else "}}"


def _outside_blocks(tags: Iterable[_Tag]) -> Iterator[_Tag]:
    depth = 0
    for tag in tags:
        if tag.inner.startswith(("#", "^")) and len(tag.inner) > 1:
            depth += 1
        elif tag.inner.startswith("/"):
            depth -= 1
        elif depth == 0:
            yield tag


@attrs.frozen
class _Needs:
    """
    The variables that a template cannot do without.

    Args:
        names: Those that stand in the data by themselves.
        paths: Those that stand inside of others, with dots.
        in_subject: Those that the subject uses, anywhere.
        at_top: The first names of these.
        order: All of them, as they come in the template.
    """

    names: tuple[str, ...]
    paths: tuple[str, ...]
    in_subject: tuple[str, ...]
    at_top: tuple[str, ...]
    order: tuple[str, ...]


def _needs_of(texts: Iterable[str], subject: str) -> _Needs:
    order: dict[str, None] = {}
    try:
        for text in texts:
            order.update((path, None) for tag in _outside_blocks(_tags(text)) if (path := tag.variable))
        used = dict.fromkeys(path for tag in _tags(subject) if (path := tag.variable))
    except _UnbalancedError:  # how SES reads it is anybody's guess
        return _Needs((), (), (), (), ())
    return _Needs(
        tuple(path for path in order if "." not in path),
        tuple(path for path in order if "." in path),
        tuple(used),
        tuple(dict.fromkeys(path.partition(".")[0] for path in used)),
        tuple(order),
    )


def _value_at(values: Mapping[str, Any], path: Iterable[str]) -> object:
    """What SES finds there: None where it finds nothing."""
    value: Any = values
    for name in path:
        number = _NUMBER.fullmatch(name)
        if isinstance(value, Mapping):
            value = value.get(name, value.get(int(name)) if number else None)  # JSON writes 2026 as "2026"
        elif isinstance(value, list | tuple) and number:
            value = value[int(name)] if int(name) < len(value) else None
        elif isinstance(value, str | int | float) or (isinstance(value, list | tuple) and name in _OF_A_LIST):
            return ""  # of these Java may know an attribute; of None it does not
        else:
            return None
    return value


def _has_break(value: object) -> bool:
    """Whether a text in it, however deep, has a control character."""
    level, seen = [value], set[int]()
    while level:
        if any(isinstance(each, str) and not each.isprintable() and has_control(each) for each in level):
            return True
        nests = [each for each in level if isinstance(each, Mapping | list | tuple) and id(each) not in seen]
        seen.update(map(id, nests))
        level = [part for nest in nests for part in (nest.values() if isinstance(nest, Mapping) else nest)]
    return False


# --- the template ----------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True, repr=False, cache_hash=True)
class Template:
    """
    A template: stored in SES under *name*, or inline.

    Write variables as ``{{name}}``, or ``{{person.name}}`` for nested data. A stored template may use all of
    Handlebars, such as ``{{#if}}`` and ``{{#each}}``; in an inline one SES only puts variables in. **SES escapes
    nothing** that it puts into HTML: what comes from users, escape yourself (`html.escape`).

    Make one and use it for all messages: those that share a template go out together.

    Args:
        name: Of a template that is stored in SES: up to 64 letters, digits, ``_`` and ``-``.
        subject: Of an inline template.
        text: Plain part of an inline template. At least one of *text* and *html* must be given.
        html: HTML part of an inline template.

    Raises:
        TypeError: An argument is no `str`.
        ValueError: Both a name and content were given, or neither; or an inline template lacks its subject, or both
            of *text* and *html*.

    Source: Amazon SES Developer Guide, "Using templates to send personalized email with the Amazon SES API".
    """

    name: str | None = attrs.field(default=None, validator=must_be(str, optional=True))
    subject: str | None = attrs.field(default=None, validator=must_be(str, optional=True))
    text: str | None = attrs.field(default=None, validator=must_be(str, optional=True))
    html: str | None = attrs.field(default=None, validator=must_be(str, optional=True))
    _needs: list[_Needs] = attrs.field(init=False, factory=list, eq=False)
    _found: list[tuple[Problem, ...]] = attrs.field(init=False, factory=list, eq=False)

    def __attrs_post_init__(self) -> None:
        has_body = self.text is not None or self.html is not None
        if self.name is not None:
            if has_body or self.subject is not None:
                raise ValueError("a Template has a name or a content, not both: a stored one has its content in SES")
        elif self.subject is None or not has_body:
            raise ValueError("a Template needs name=, or subject= with text= or html=")

    def missing(self, data: Mapping[str, Any]) -> tuple[str, ...]:
        """
        The variables that the template certainly needs and *data* lacks, in the order of the template.

        SES renders None no more than what is not there. Of a stored template nothing is known here: none.
        """
        values = data.values_by_name if isinstance(data, TemplateData) else data
        needs = self._needs[0] if self._needs else self._read_needs()
        if not needs.paths:
            # One look for each: asking whether None is among the values would compare it with whatever they are.
            for name in needs.names:
                if values.get(name) is None:
                    break
            else:
                return ()
        return tuple(path for path in needs.order if _value_at(values, path.split(".")) is None)

    def data_problems(self, data: Mapping[str, Any]) -> tuple[Problem, ...]:
        """What of *data* SES could not render the template with: variables missing, line breaks in the subject."""
        missing = self.missing(data)
        needs = self._needs[0]
        if not missing and not needs.in_subject:
            return ()
        found = [Problem(f"data[{name}]", "is missing, and the template needs it") for name in missing]
        found += [
            Problem(f"data[{path}]", "has a control character or line break, and is in the subject")
            for path in needs.in_subject
            if _has_break(_value_at(data, path.split(".")))
        ]
        return tuple(found)

    def suits(self, data: TemplateData) -> bool:
        """Whether nothing is wrong with it, nor with *data* for it: `check` and `data_problems` would find nothing."""
        needs = self._needs[0] if self._needs else self._read_needs()
        if self.check():
            return False
        if needs.paths:
            return not self.data_problems(data)
        values = data.values_by_name
        for name in needs.names:
            if values.get(name) is None:
                return False
        for name in needs.at_top:
            value = values.get(name)
            if not (value.isprintable() if isinstance(value, str) else isinstance(value, int | float)):
                return not self.data_problems(data)
        return True

    def _read_needs(self) -> _Needs:
        needs = _needs_of((self.subject or "", self.text or "", self.html or ""), self.subject or "")
        self._needs.append(needs)
        return needs

    @property
    def characters(self) -> int:
        """How long its content is; 0 of a stored one."""
        return len(self.subject or "") + len(self.text or "") + len(self.html or "")

    @property
    def size(self) -> int:
        """Bytes of its content in UTF-8; 0 of a stored one."""
        return sum(len((getattr(self, part) or "").encode("utf-8", "surrogatepass")) for part in _PARTS)

    def check(self) -> tuple[Problem, ...]:
        """What SES would refuse, by field. Looked at once."""
        if not self._found:
            self._found.append(tuple(self._problems(stored=False)))
        return self._found[0]

    def check_stored(self) -> tuple[Problem, ...]:
        """What SES would refuse in the content of a template that is to be stored."""
        return tuple(self._problems(stored=True))

    def _problems(self, *, stored: bool) -> Iterable[Problem]:
        if self.name is not None and not _NAME.fullmatch(self.name):
            yield Problem("name", "must be 1 to 64 letters, digits, _ or -")
        if has_control(self.subject or ""):
            yield Problem("subject", "has a control character or line break")
        for part in _PARTS:
            text = getattr(self, part) or ""
            if not is_encodable(text):
                yield Problem(part, HALF_PAIR)
            yield from (Problem(part, reason) for reason in _syntax_problems(text, stored=stored))
        yield from self._size_problems(stored=stored)

    def _size_problems(self, *, stored: bool) -> Iterable[Problem]:
        if stored and self.size > MAX_STORED_BYTES:
            yield Problem("content", "is larger than 500 KB, which is what SES stores")
        elif self.size > MAX_INLINE_BYTES:
            yield Problem("content", "is larger than 1 MB, which is what SES takes inline")

    def __repr__(self) -> str:
        if self.name is not None:
            return f"<Template {self.name}>" if _NAME.fullmatch(self.name) else "<Template stored>"
        return f"<Template inline{' text' if self.text is not None else ''}{' html' if self.html is not None else ''}>"


def _syntax_problems(text: str, *, stored: bool) -> Iterator[str]:
    open_blocks: list[str] = []
    try:
        for tag in _tags(text):
            if not tag.inner:
                yield f"has an empty {{{{}}}} on line {tag.line}"
            elif not (stored or tag.is_comment or tag.is_path):
                yield f"uses more than variables on line {tag.line}; SES takes that in stored templates only"
                return
            elif reason := _block_problem(tag, open_blocks):
                yield reason
                return
    except _UnbalancedError as error:
        yield f"has {{{{ without its }}}} on line {error.line}"
        return
    if open_blocks:
        yield f"opens {len(open_blocks)} block(s) that it does not close"


def _block_problem(tag: _Tag, open_blocks: list[str]) -> str | None:
    """Keep book of the blocks that *tag* opens or closes, and say what is wrong with it."""
    inner = tag.inner
    if inner.startswith(("#", "^")) and len(inner) > 1:
        open_blocks.append("".join(inner.lstrip("#^*> \t\r\n").split()[:1]))
    elif inner.startswith("/") and (not open_blocks or open_blocks.pop() != inner[1:].strip()):
        return f"closes a block that is not open on line {tag.line}"
    return None

"""
The part of Handlebars that SES documents.

Values are put in as they are: SES escapes no HTML, with two braces as with three, in every part of a mail. A variable
that is missing from the data, or null in it, fails the rendering; what ``#if``, ``#unless``, ``#each`` and ``#with``
ask for may be missing. Lines that hold nothing but a tag keep their line break.

Source: SES Developer Guide, "Advanced email personalization", and handlebarsjs.com, "Built-in Helpers".
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TAG = re.compile(
    r"(?P<escaped>\\\{\{[^{}]*\}\})"
    r"|\{\{(?P<left>~?)(?:!--.*?--|!.*?|\{(?P<raw>[^{}]*)\}|(?P<tag>[^{}]*?))(?P<right>~?)\}\}",
    re.DOTALL,
)
_STEP = re.compile(r"\[([^\]]*)\]|([^\s.\[\]/!\"#%&'()*+,;<=>@^`{|}~]+)")
# List management puts the address in after the rendering.
_OF_SES = "amazonSESUnsubscribeUrl"
_BLOCKS = frozenset({"if", "unless", "each", "with"})


class TemplateError(ValueError):
    """It is no template."""


class RenderingError(Exception):
    """Template and data do not go together. The text is SES's own and names a variable at most."""


def _missing(name: str) -> RenderingError:
    return RenderingError(f"Attribute '{name}' is not present in the rendering data.")


@attrs.frozen
class _Path:
    """``../contact.name`` is one level up, then two steps; ``@index`` is a private variable of a loop."""

    name: str
    steps: tuple[str, ...]
    up: int = 0
    private: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it is the name of a variable, with or without dots, and nothing more."""
        return bool(self.steps) and not self.up and not self.private


@attrs.frozen
class _Value:
    path: _Path


@attrs.frozen
class _Block:
    kind: str
    path: _Path
    body: list[_Node]
    otherwise: list[_Node]


@attrs.frozen
class _Partial:
    name: str
    path: _Path | None


_Node: TypeAlias = "str | _Value | _Block | _Partial"


class _Frame:
    """What names mean at one place of the rendering."""

    __slots__ = ("context", "parent", "private")

    def __init__(
        self, context: object, parent: _Frame | None = None, private: Mapping[str, object] | None = None
    ) -> None:
        self.context = context
        self.parent = parent
        self.private = private

    def find(self, path: _Path) -> object:
        """The value at *path*, None where there is none."""
        if path.private:
            return self._find_private(path.steps)
        frame: _Frame | None = self
        for _ in range(path.up):
            frame = frame.parent if frame is not None else None
        return None if frame is None else _walk(frame.context, path.steps)

    def _find_private(self, steps: tuple[str, ...]) -> object:
        frame: _Frame = self
        while frame.parent is not None and (frame.private is None or steps[0] not in frame.private):
            frame = frame.parent
        return _walk(frame.context, steps[1:]) if steps[0] == "root" else _walk(frame.private, steps)


def _walk(value: object, steps: tuple[str, ...]) -> object:
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list):
            value = len(value) if step == "length" else _item(value, step)
        else:
            return None
    return value


def _item(values: list[Any], step: str) -> object:
    return values[int(step)] if step.isdecimal() and int(step) < len(values) else None


class Program:
    """A template, read. `render` it with as many data as there are."""

    __slots__ = ("_nodes", "_partials", "_paths")

    def __init__(self, nodes: list[_Node], partials: dict[str, list[_Node]]) -> None:
        self._nodes = nodes
        self._partials = partials
        values = [node.path for node in nodes if isinstance(node, _Value)]
        flat = all(isinstance(node, str | _Value) for node in nodes) and not partials
        # Each once, in order: a template may use a name a hundred times.
        self._paths = list(dict.fromkeys(values)) if flat and all(path.is_plain for path in values) else None

    @property
    def is_simple(self) -> bool:
        """Whether it only puts variables in: no blocks, no partials."""
        return self._paths is not None

    def check(self, data: Mapping[str, Any]) -> None:
        """
        See whether *data* has all that the template needs.

        Raises:
            RenderingError: It has not.
        """
        if self._paths is None:
            self.render(data)
            return
        for path in self._paths:
            if _walk(data, path.steps) is None:
                raise _missing(path.name)

    def render(self, data: Mapping[str, Any]) -> str:
        """
        Put *data* in.

        Raises:
            RenderingError: A variable is missing, or a partial never ends.
        """
        out: list[str] = []
        try:
            self._render(self._nodes, _Frame(data), out)
        except RecursionError:
            raise RenderingError("The template's partials call each other without end.") from None
        return "".join(out)

    def _render(self, nodes: list[_Node], frame: _Frame, out: list[str]) -> None:
        for node in nodes:
            if isinstance(node, str):
                out.append(node)
            elif isinstance(node, _Value):
                value = frame.find(node.path)
                if value is None:
                    raise _missing(node.path.name)
                out.append(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
            elif isinstance(node, _Block):
                self._render_block(node, frame, out)
            else:
                inner = frame if node.path is None else _Frame(frame.find(node.path), frame)
                self._render(self._partials[node.name], inner, out)

    def _render_block(self, block: _Block, frame: _Frame, out: list[str]) -> None:
        value = frame.find(block.path)
        kind = block.kind
        if not kind:
            kind = "each" if isinstance(value, list) else "with" if isinstance(value, dict) else "if"
        if _is_true(value) is (kind == "unless"):
            self._render(block.otherwise, frame, out)
        elif kind == "each":
            self._render_each(block, value if isinstance(value, list | dict) else [], frame, out)
        else:
            self._render(block.body, _Frame(value, frame) if kind == "with" else frame, out)

    def _render_each(self, block: _Block, values: dict[str, Any] | list[Any], frame: _Frame, out: list[str]) -> None:
        if not values:
            self._render(block.otherwise, frame, out)
        pairs: list[tuple[object, object]]
        pairs = list(values.items()) if isinstance(values, dict) else list(enumerate(values))
        for index, (key, value) in enumerate(pairs):
            private = {"index": index, "key": key, "first": not index, "last": index + 1 == len(pairs)}
            self._render(block.body, _Frame(value, frame, private), out)


def _is_true(value: object) -> bool:
    """Handlebars' truth, which is JavaScript's but for empty lists. Source: handlebarsjs.com, "#if"."""
    return isinstance(value, dict) or bool(value)


@lru_cache(maxsize=256)
def compile_template(source: str) -> Program:
    """
    Read a template.

    Raises:
        TemplateError: A block is not closed, or something is not understood.
    """
    return _Reader(source).program()


class _Reader:
    """Takes a template apart: a stack of open blocks, the innermost last."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._partials: dict[str, list[_Node]] = {}
        self._used: set[str] = set()
        self._nodes: list[_Node] = []
        # Of each open block: its word, the nodes around it, and its blocks, of which "else if" makes several.
        self._open: list[tuple[str, list[_Node], list[_Block]]] = []
        self._inline: list[str] = []

    def program(self) -> Program:
        """Read it all."""
        for text, match in self._pieces():
            if text:
                self._nodes.append(text)
            if match is not None:
                self._take(match)
        if self._open:
            raise TemplateError(f"The block '{self._open[-1][0]}' is not closed.")
        if not self._used <= self._partials.keys():
            raise TemplateError("A partial is used and nowhere defined.")
        return Program(self._nodes, self._partials)

    def _pieces(self) -> Iterator[tuple[str, re.Match[str] | None]]:
        """Text, and the tag behind it; "~" takes the white space beside it away."""
        position, strip = 0, False
        for match in _TAG.finditer(self._source):
            text = self._source[position : match.start()]
            text = text.lstrip() if strip else text
            yield _plain(text.rstrip() if match["left"] else text), match
            position, strip = match.end(), bool(match["right"])
        text = self._source[position:]
        yield _plain(text.lstrip() if strip else text), None

    def _take(self, match: re.Match[str]) -> None:
        if match["escaped"] is not None:
            self._nodes.append(match["escaped"][1:])
        elif match["raw"] is not None:
            self._nodes.append(_Value(_path(match["raw"].strip())))
        elif match["tag"] is not None and match["tag"].strip() == _OF_SES:
            self._nodes.append(match[0])
        elif match["tag"] is not None:
            self._take_tag(match["tag"].strip())

    def _take_tag(self, tag: str) -> None:
        if tag.startswith("#"):
            self._begin(tag[1:].strip())
        elif tag.startswith("/"):
            self._end(tag[1:].strip())
        elif tag.startswith(">"):
            self._call(tag[1:].split())
        elif tag == "^" or tag.split()[:1] == ["else"]:
            self._turn(tag.split()[1:])
        else:
            self._nodes.append(_Value(_path(tag.removeprefix("&").strip())))

    def _begin(self, tag: str) -> None:
        words = tag.split()
        if tag.startswith("*"):
            self._begin_inline(tag[1:].split())
            return
        block = _block(words)
        self._nodes.append(block)
        self._open.append((words[0], self._nodes, [block]))
        self._nodes = block.body

    def _begin_inline(self, words: list[str]) -> None:
        if len(words) != 2 or words[0] != "inline" or words[1][0] not in "\"'" or words[1][0] != words[1][-1]:
            raise TemplateError('An inline partial is written {{#* inline "name"}}.')
        self._open.append(("inline", self._nodes, []))
        self._nodes = self._partials[words[1][1:-1]] = []

    def _turn(self, words: list[str]) -> None:
        if not self._open or not self._open[-1][2]:
            raise TemplateError("There is an 'else' outside of a block.")
        blocks = self._open[-1][2]
        self._nodes = blocks[-1].otherwise
        if words:
            block = _block(words)
            self._nodes.append(block)
            blocks.append(block)
            self._nodes = block.body

    def _end(self, word: str) -> None:
        if not self._open or self._open[-1][0] != word:
            raise TemplateError(f"The block '{word}' is closed and was not opened.")
        self._nodes = self._open.pop()[1]

    def _call(self, words: list[str]) -> None:
        if not 1 <= len(words) <= 2:
            raise TemplateError("A partial is called by its name.")
        self._used.add(words[0])
        self._nodes.append(_Partial(words[0], _path(words[1]) if words[1:] else None))


def _plain(text: str) -> str:
    if "{{" in text:
        raise TemplateError("A tag is opened and not closed.")
    return text


def _block(words: list[str]) -> _Block:
    """``#if name``, or the helperless ``#name``."""
    if len(words) == 2 and words[0] in _BLOCKS:
        return _Block(words[0], _path(words[1]), [], [])
    if len(words) == 1 and words[0] not in _BLOCKS:
        return _Block("", _path(words[0]), [], [])
    raise TemplateError("A block of this kind is not known.")


def _path(text: str) -> _Path:
    name, up = text, 0
    private = text.startswith("@")
    text = text.removeprefix("@")
    while text.startswith("../"):
        text, up = text[3:], up + 1
    if text == "..":
        return _Path(name, (), up + 1)
    text = text.removeprefix("./")
    if text in {"", ".", "this"} and name and name != "@":
        return _Path(name, (), up)
    return _Path(name, _steps(text.removeprefix("this.")), up, private)


def _steps(text: str) -> tuple[str, ...]:
    steps: list[str] = []
    position = 0
    while match := _STEP.match(text, position):
        steps.append(match[1] if match[1] is not None else match[2])
        position = match.end()
        if position < len(text) and text[position] == ".":
            position += 1
    if not steps or position < len(text) or text.endswith("."):
        raise TemplateError("An expression is not understood.")
    return tuple(steps)

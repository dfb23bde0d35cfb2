"""
Every Python block of README and docs runs, as typed, against a simulated SES that the environment points at.
"""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
from pathlib import Path

import anyio
import pytest

import tanksend
from tanksend.testing import SimulatedSES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _blocks(page: Path) -> list[tuple[int, str]]:
    """The Python blocks of a page, each with the line its first statement stands on."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, match.start(1)), match[1]) for match in BLOCK.finditer(text)]


def _run(page: Path, line: int, block: str, names: dict[str, object]) -> None:
    """Run one block as a notebook cell would: `await` may stand at its top."""
    code = compile("\n" * line + block, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if not code.co_flags & inspect.CO_COROUTINE:
        exec(code, names)  # noqa: S102  (our own pages)
        return

    async def cell() -> None:
        await eval(code, names)  # noqa: S307  (our own pages)

    anyio.run(cell)


@pytest.fixture
def simulated(monkeypatch, tmp_path):
    """A simulated SES in Singapore, found through the environment as the AWS tools find SES."""
    for name in ("AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with SimulatedSES(rate=-1, region="ap-southeast-1") as ses:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SESV2", ses.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_REGION", "ap-southeast-1")
        monkeypatch.chdir(tmp_path)
        yield ses


@pytest.mark.parametrize(
    "page", [page for page in PAGES if _blocks(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_block_runs(page, simulated, capsys):
    """The blocks of one page run in order, sharing names, and nobody gets a mail twice from one batch."""
    names: dict[str, object] = {"__name__": "__main__"}
    for line, block in _blocks(page):
        _run(page, line, block, names)
    assert simulated.counts.accepted > 0 or page.name in {"smtp.md", "testing.md"}


def test_readme_opens_with_the_two_commands():
    """The first thing a newcomer reads is what to type."""
    first = re.search(
        r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert first is not None
    assert [
        "python -m pip install nox && python -m nox -s demo",
        "python -m pip install nox && python -m nox -s tests",
    ] == first[1].splitlines()


def test_the_reference_has_every_public_module():
    """Sphinx goes through the names of each."""
    reference = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    names = {module.name for module in pkgutil.iter_modules(tanksend.__path__) if not module.name.startswith("_")}
    modules = {"tanksend", *(f"tanksend.{name}" for name in names - {"cli"})}
    assert modules == set(re.findall(r"^\.\. automodule:: (\S+)$", reference, re.MULTILINE))


def test_the_tree_of_pages_has_no_orphan():
    """Every page but the first stands in a table of contents."""
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in PAGES[1:]} - {"index"}
    assert pages == {line for line in index.splitlines() if line in pages}

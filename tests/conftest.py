"""
What every test file may use.

`anyio_backend` runs each async test on asyncio and on trio. `needs` is how a test asks for something that may be
missing on a machine: it is skipped there with the reason, and fails under CI, where nothing may be missing.
"""

from __future__ import annotations

import gc
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

Needs = Callable[..., None]
ROOT = Path(__file__).resolve().parent.parent

# Two shared cores make one example slow now and then; a deadline per example would only measure the neighbours. How
# many examples are thrown away, or too large, is chance as well, and says nothing of what is tested.
CHANCE = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
settings.register_profile("tanksend", deadline=None, suppress_health_check=CHANCE)
settings.register_profile("brief", settings.get_profile("tanksend"), max_examples=30)
settings.register_profile("long", settings.get_profile("tanksend"), max_examples=5_000)
settings.load_profile(os.environ.get("TANKSEND_EXAMPLES", "tanksend"))


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over modules and tests, which all stay: it would take a quarter of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The event loops that every async test runs on."""
    return request.param


def _missing(reason: str) -> None:
    """Skip on somebody's machine, fail under CI."""
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(f"{reason} (a skip on other machines, a failure under CI)")
    pytest.skip(reason)


@pytest.fixture
def needs() -> Needs:
    """
    Ask for a module or a fact: `needs("moto")`, or `needs(path.exists(), "no such server here")`.
    """

    def ask(what: str | bool, reason: str | None = None) -> None:
        there = importlib.util.find_spec(what) is not None if isinstance(what, str) else what
        if not there:
            _missing(reason or f"{what} is not installed")

    return ask


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The reference material beside the checkout; its absence is a legal skip, also under CI."""
    place = ROOT.parent / "shared" / "fixtures"
    if not place.is_dir():
        pytest.skip("the reference material (../shared/fixtures) is not here")
    return place

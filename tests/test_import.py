"""
What `import tanksend` and the first steps with it load. Each test is a fresh interpreter.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("botocore", "boto3", "dns", "httptools", "ssl", "email_validator", "idna", "asyncio", "trio", "uvloop")
LATER = ("csv", "html", "hashlib", "urllib.parse", "json", "pandas", "tqdm", "logging", "socket")


def loaded(code, names):
    """Which of *names* are loaded by *code*, beside what attrs and anyio load."""
    script = f"""
import sys, attrs, anyio
before = set(sys.modules)
{code}
print(*sorted(set({names!r}) & (set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    "module",
    [
        "tanksend",
        "tanksend.exceptions",
        "tanksend.typing",
        "tanksend.retries",
        "tanksend.limiters",
        "tanksend.suppression",
    ],
)
def test_importing_it_loads_nothing_heavy(module):
    """No AWS library, resolver, parser or TLS, which cost more than all of this package."""
    assert loaded(f"import {module}", HEAVY) == []


def test_importing_it_loads_nothing_that_can_wait():
    """What one method needs is loaded by that method."""
    assert loaded("import tanksend", LATER) == []


@pytest.mark.parametrize(
    "code",
    [
        "tanksend.Message('kim@example.com', 'Hi', 'Hello', headers={'X-A': 'a'}, key='k')",
        "tanksend.Address.parse('Kim, Jr <kim@example.com>').header()",
        "tanksend.Attachment('a.pdf', b'1').encoded",
        "tanksend.Unsubscribe(url='https://example.com/u').headers",
        "tanksend.SendReport().counts",
        "tanksend.AddressValidator()",
    ],
)
def test_values_load_nothing_heavy(code):
    """A program that only makes messages, and lets another send them, pays for no more."""
    assert loaded(f"import tanksend\n{code}", HEAVY) == []


def test_judging_an_address_loads_what_it_needs():
    """And not the resolver that email-validator would use for its own questions to DNS."""
    code = "import tanksend\nassert tanksend.Message('kim@example.com', 'Hi', 'Hello').check() == ()"
    assert loaded(code, ("email_validator", "dns", "botocore", "httptools")) == ["email_validator"]

"""
The one door: `python -m pip install nox && python -m nox -s demo`, and `... -s tests`.

Every session installs from the pins in the constraints files and runs what a user would get: the built wheel, not the
checkout. Nothing but Python and git is asked of the machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
VERSIONS = ("3.11", "3.12", "3.13")
FULL_COVERAGE = {  # Layers 0, 2, 4 and the ledgers' rules: what decides a message's fate. Each branch is tested.
    0: ("exceptions", "_wording", "_addresses", "_validator", "_messages", "_results", "_report", "_version"),
    2: (
        "_classify",
        "retries",
        "_pacing",
        "_quota",
        "_payload",
        "_mime",
        "_smtp_password",
        "_sigv4",
        "_endpoints",
        "_http1",
    ),
    3: ("ledgers/_keys", "ledgers/_states"),
    4: ("_engine",),
}

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests", "lint", "typing", "docs"]
nox.options.default_venv_backend = "virtualenv"  # Brings its own pip: Debian's Python may lack ensurepip.
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.error_on_external_run = True


def _starts(version: str) -> bool:
    """Whether this Python really starts: pyenv leaves commands on the path that only say that they are not set."""
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return True
    command = shutil.which(f"python{version}")
    return bool(command) and subprocess.run([command, "-c", ""], capture_output=True, check=False).returncode == 0


HERE = [version for version in VERSIONS if _starts(version)] or [f"{sys.version_info[0]}.{sys.version_info[1]}"]


def _install(session: nox.Session, *what: str, group: str | None = None, pins: str = "constraints.txt") -> None:
    """Install the project's parts and one dependency group, pinned."""
    tools = nox.project.dependency_groups(PROJECT, group) if group else ()
    session.install("-c", pins, *what, *tools)


def _pytest(*options: str, posargs: list[str]) -> list[str]:
    return ["-m", "pytest", *options, *posargs]


@nox.session
def demo(session: nox.Session) -> None:
    """Send a campaign to a simulated SES with faults switched on, and count what arrived."""
    _install(session, ".[speedups,notebook]")
    session.run("python", "-m", "tanksend", "demo", *session.posargs)


@nox.session(python=HERE)
def tests(session: nox.Session) -> None:
    """The tests, on every supported Python that is here; coverage is counted on the first of them."""
    if missing := [version for version in VERSIONS if version not in HERE]:
        session.warn(f"Not on this machine, so skipped: Python {', '.join(missing)}")
    _install(session, ".[speedups,notebook,postgres,redis]", group="tests")
    if session.posargs:
        session.run("python", *_pytest(posargs=session.posargs))
        return
    if session.python != HERE[0]:
        # Properties are sought on the first Python; the others are asked whether they are Python as well.
        session.run(
            "python", *_pytest(posargs=[]), env={"TANKSEND_EXAMPLES": "brief", "TANKSEND_ENGINE_EXAMPLES": "40"}
        )
        return
    session.run("coverage", "erase")
    session.run("coverage", "run", *_pytest(posargs=[]))
    session.run("coverage", "report", "--fail-under=95")
    session.log("Layers 0, 2 and 4, and the rules of ledgers, must be covered whole:")
    files = [f"*/tanksend/{name}{end}" for layer in FULL_COVERAGE.values() for name in layer for end in (".py", "/*")]
    session.run("coverage", "report", f"--include={','.join(files)}", "--fail-under=100")


@nox.session
def lowest(session: nox.Session) -> None:
    """The tests against the lowest versions that the project says it works with."""
    _install(session, ".[speedups,notebook,postgres,redis]", group="tests", pins="constraints-lowest.txt")
    session.run("python", *_pytest(posargs=session.posargs))


@nox.session
def conformance(session: nox.Session) -> None:
    """The tests that read the reference material beside the checkout, where it is present."""
    if not (ROOT.parent / "shared" / "fixtures").is_dir():
        session.skip("the reference material (../shared/fixtures) is not here")
    _install(session, ".[speedups,notebook,postgres,redis]", group="tests")
    session.run("python", *_pytest("-m", "conformance", posargs=session.posargs))


@nox.session
def lint(session: nox.Session) -> None:
    """Style, format, and the direction of imports."""
    _install(session, group="lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": "src"})


@nox.session
def typing(session: nox.Session) -> None:
    """Both type checkers pass the source and a consumer of it, and refuse a plug-in with wrong signatures."""
    _install(session, ".[speedups,notebook,postgres,redis]", group="typing")
    good = ("src", "tests/typing/api.py")
    session.run("mypy", *good)
    session.run("pyright", *good)
    _must_refuse(session, "mypy", "--no-pretty")
    _must_refuse(session, "pyright")


def _must_refuse(session: nox.Session, *checker: str) -> None:
    """Run a checker over the wrong plug-in: it has to object to the lines marked `# refused`, and to no other."""
    wrong = "tests/typing/wrong_limiter.py"
    lines = (ROOT / wrong).read_text(encoding="utf-8").splitlines()
    expected = {number for number, line in enumerate(lines, 1) if line.endswith("# refused")}
    said = str(session.run(*checker, wrong, silent=True, success_codes=[0, 1]))
    refused = {int(number) for number in re.findall(r"wrong_limiter\.py:(\d+):.*\berror\b", said)}
    if refused != expected:
        session.error(f"{checker[0]} refused lines {sorted(refused)} of {wrong}, not {sorted(expected)}:\n{said}")
    session.log(f"{checker[0]} refuses {wrong}, as it must")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    _install(session, ".", group="docs")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """CPU per message and messages per second, beside aiobotocore and botocore."""
    _install(session, ".[speedups]", group="bench")
    peer = _aiobotocore(session)
    session.run("python", "bench/run.py", *session.posargs, env={"BENCH_AIOBOTOCORE_PYTHON": str(peer)})


def _aiobotocore(session: nox.Session) -> Path:
    """A Python of its own for aiobotocore, which pins an older botocore than ours."""
    home = Path(session.create_tmp()).resolve() / "aiobotocore"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    session.run("virtualenv", "--quiet", str(home))
    peers = nox.project.dependency_groups(PROJECT, "aiobotocore")
    session.run(str(python), "-m", "pip", "install", "-q", "-c", "constraints-aiobotocore.txt", *peers, external=True)
    return python


@nox.session
def proof(session: nox.Session) -> None:
    """The long acceptance runs, with a figure for each."""
    _install(session, ".[speedups,notebook,postgres,redis]", group="proof")
    session.run("python", "proof/run.py", *session.posargs)


@nox.session
def mutation(session: nox.Session) -> None:
    """Break layers 0 and 2 in many small ways and see whether a test notices each."""
    _install(session, ".[speedups,notebook,postgres,redis]", group="mutation")
    session.run("mutmut", "run", *session.posargs)
    session.run("mutmut", "results")


@nox.session
def changelog(session: nox.Session) -> None:
    """Show the next release's notes; `nox -s changelog -- build --yes` writes them into CHANGELOG.md."""
    _install(session, ".", group="changelog")
    session.run("towncrier", *(session.posargs or ["build", "--draft"]))


@nox.session
def lock(session: nox.Session) -> None:
    """Renew the constraints files."""
    session.install("uv")
    everything = [f"--group={name}" for name in PROJECT["dependency-groups"] if name != "aiobotocore"]
    _compile(session, "constraints.txt", "pyproject.toml", "--all-extras", *everything)
    lower = Path(session.create_tmp()) / "lowest.in"
    lower.write_text("\n".join(_lower_bounds()), encoding="utf-8")
    _compile(session, "constraints-lowest.txt", "pyproject.toml", str(lower), "--all-extras", "--group=tests")
    _compile(session, "constraints-aiobotocore.txt", "--group=aiobotocore")


def _compile(session: nox.Session, target: str, *sources: str) -> None:
    quiet = ("--no-header", "--no-annotate", "--no-emit-index-url", "--upgrade")
    session.run("uv", "pip", "compile", "--universal", "--python-version=3.11", *quiet, "-o", target, *sources)


def _lower_bounds() -> list[str]:
    """What users' environments share with us, each at the lowest version that we say works."""
    extras = PROJECT["project"]["optional-dependencies"].values()
    direct = [*PROJECT["project"]["dependencies"], *(line for extra in extras for line in extra)]
    return [line.replace(">=", "==", 1) for line in direct]

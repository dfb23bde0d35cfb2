"""
The package as a whole: what importing it costs, and that it works under another name.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import tanksend

PACKAGE = Path(tanksend.__file__).parent
SHELLS = ("cli", "testing", "_notebook", "__main__")
# Loaded by the first function that needs them, or never: each would cost more than all of tanksend.
LATE = ("botocore", "dns", "email_validator", "httptools", "idna", "pandas", "tqdm", "trio", "uvloop", "asyncio", "ssl")


def _python(code: str, cwd: Path | None = None) -> str:
    """Run *code* in a fresh interpreter and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_version_stands_once():
    """The distribution's version is the one the package says."""
    assert importlib.metadata.version("tanksend") == tanksend.__version__


def test_type_checkers_are_told_that_it_is_typed():
    """The marker of PEP 561 is in the wheel."""
    assert (PACKAGE / "py.typed").is_file()


def test_import_loads_nothing_heavy():
    """`import tanksend` loads no optional dependency, and none of the required ones that can wait."""
    code = (
        "import sys, attrs, anyio\n"
        "before = set(sys.modules)\n"
        "import tanksend\n"
        f"print(set({LATE!r}) & (set(sys.modules) - before))\n"
    )
    assert _python(code) == "set()"


def test_every_public_name_is_there():
    """Each name of `__all__`, in the package and in its public modules, can be completed and imported."""
    names = [module.name for module in pkgutil.iter_modules([str(PACKAGE)]) if not module.name.startswith("_")]
    modules = [tanksend, *(importlib.import_module(f"tanksend.{name}") for name in names)]
    missing = [
        (module.__name__, name)
        for module in modules
        for name in getattr(module, "__all__", ())
        if not (hasattr(module, name) and name in dir(module))
    ]
    assert missing == []


def test_what_is_loaded_later_is_completed_before():
    """In a fresh interpreter, where nothing has asked for it yet."""
    code = (
        "from tanksend import limiters, transports\n"
        "print([name for module in (limiters, transports) for name in module.__all__ if name not in dir(module)])"
    )
    assert _python(code) == "[]"


def test_imports_inside_the_package_are_relative():
    """No module names the package: it may live under any name."""
    named = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "tanksend")
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "tanksend" for alias in node.names))
    ]
    assert named == []


def test_it_works_renamed_in_somebodys_vendor_directory(tmp_path):
    """Copied under another name, without its metadata, every module but the shells still imports."""
    vendor = tmp_path / "somebody" / "_vendor"
    shutil.copytree(PACKAGE, vendor / "mail", ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import sys, pkgutil, importlib\n"
        "from somebody._vendor import mail\n"
        f"skip = {SHELLS!r}\n"
        "for found in pkgutil.walk_packages(mail.__path__, mail.__name__ + '.'):\n"
        "    if found.name.split('.')[3] not in skip:\n"
        "        importlib.import_module(found.name)\n"
        "print(mail.__version__, 'tanksend' in sys.modules)\n"
    )
    assert _python(code, cwd=tmp_path) == f"{tanksend.__version__} False"


def test_importing_it_opens_nothing(tmp_path):
    """No thread, process or socket comes from importing it, and nothing is written."""
    code = (
        "import sys, threading\n"
        "seen = []\n"
        "outside = ('socket', 'subprocess')\n"
        "sys.addaudithook(lambda event, args: seen.append(event) if event.split('.')[0] in outside else None)\n"
        f"sys.path[:0] = {[str(PACKAGE.parent)]!r}\n"
        "import tanksend\n"
        "print(seen, threading.active_count())\n"
    )
    assert _python(code, cwd=tmp_path) == "[] 1"
    assert list(tmp_path.iterdir()) == []

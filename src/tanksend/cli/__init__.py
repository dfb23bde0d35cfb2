"""The ``tanksend`` command: one module per sub-command, loaded when it is asked for."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence


@attrs.frozen
class _Command:
    module: str
    summary: str


_COMMANDS = {
    "demo": _Command("_demo", "send a campaign to a simulated SES with faults switched on, and count what arrived"),
    "ledger": _Command("_ledger", "show what became of a ledger's keys, settle unknown ones, export and forget"),
    "simulate": _Command("_simulate", "run a simulated SES that enforces its quotas"),
}
_USAGE_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one sub-command.

    Args:
        argv: Arguments without the program's name; those of the process when None.

    Returns:
        The exit status.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in {"-h", "--help"}:
        print(_usage())
        return 0
    if arguments and arguments[0] == "--version":
        from .. import __version__

        print(f"tanksend {__version__}")
        return 0
    command = _COMMANDS.get(arguments[0]) if arguments else None
    if command is None:
        print(_usage(), file=sys.stderr)
        if arguments:
            print(f"\ntanksend: there is no command {arguments[0]!r}", file=sys.stderr)
        return _USAGE_ERROR
    module = importlib.import_module(f".{command.module}", __name__)
    status: int = module.main(arguments[1:])
    return status


def _usage() -> str:
    lines = [f"  {name:<10}{command.summary}" for name, command in _COMMANDS.items()]
    return "\n".join(["usage: tanksend COMMAND [OPTIONS]", "", "commands:", *lines])

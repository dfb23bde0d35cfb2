"""
The long acceptance runs: `nox -s proof`, or `nox -s proof -- faults memory` for some of them.

Each prints its figures; the exit code is the number of those that miss their target.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

RUNS = (
    "imports",
    "signatures",
    "moto_server",
    "faults",
    "refusals",
    "memory",
    "pacing",
    "strangers",
    "quota",
    "lanes",
    "redis_sharing",
    "ledger_speed",
    "ledger_kill",
    "ledger_pace",
    "ledger_resume",
    "suppression_speed",
    "packing",
    "same_inbox",
    "smtp",
)


def main(names: list[str]) -> int:
    """Run *names*, or all."""
    missed = 0
    for name in names or RUNS:
        module = importlib.import_module(name)
        print(f"\n{name}: {(module.__doc__ or '').strip().splitlines()[0]}", flush=True)
        started = time.monotonic()
        for figure in module.figures():
            print(f"  {figure}", flush=True)
            missed += not figure.ok
        print(f"  ({time.monotonic() - started:.0f} s)", flush=True)
    print(f"\n{missed} figures miss their target")
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

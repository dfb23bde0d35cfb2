"""
CPU per message, messages per second and use of a paced account, beside the peers, from one run: `nox -s bench`.

Every client sends the same messages over TLS to the same server, in turn, five times; the table has the medians.
`nox -s bench -- --messages 1000 --rounds 3` is quicker and noisier.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pacing
import trustme

HERE = Path(__file__).parent
PEER = os.environ.get("BENCH_AIOBOTOCORE_PYTHON")
PYTHONS = {
    "tanksend, asyncio": sys.executable,
    "tanksend, uvloop": sys.executable,
    "tanksend, trio": sys.executable,
    "aiobotocore": PEER,
    "botocore, 10 threads": sys.executable,
    "tanksend, packed": sys.executable,
    "aiobotocore, packed": PEER,
}
PACKED = ("tanksend, packed", "aiobotocore, packed")
MORE = 10
"""Packed messages for one that goes alone: they take so much less time each."""
BASE = "aiobotocore"


@contextmanager
def server(certificate: Path) -> Iterator[str]:
    """The server's port, while it runs."""
    with subprocess.Popen(
        [sys.executable, HERE / "server.py", certificate], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def measure(client: str, python: str, port: str, number: int, bundle: Path) -> tuple[float, float]:
    """CPU in µs per message, and messages per second, of one run in a fresh process."""
    done = subprocess.run(
        [python, HERE / "clients.py", client, port, str(number)],
        check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "AWS_CA_BUNDLE": str(bundle)},
    )  # fmt: skip
    cpu, elapsed = json.loads(done.stdout)
    return cpu / number * 1e6, number / elapsed


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--messages", type=int, default=4_000)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    clients = {name: python for name, python in PYTHONS.items() if python}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
    authority = trustme.CA()
    with tempfile.TemporaryDirectory() as folder:
        bundle, certificate = Path(folder, "ca.pem"), Path(folder, "server.pem")
        authority.cert_pem.write_to_path(str(bundle))
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
        with server(certificate) as port:
            for _ in range(chosen.rounds):
                for name, python in clients.items():
                    number = chosen.messages * (MORE if name in PACKED else 1)
                    found[name].append(measure(name, python, port, number, bundle))
    print(f"{chosen.messages} messages of 3 KB over TLS, ten in flight, median of {chosen.rounds}\n")
    report({name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()})
    pacing.report()
    return 0


def report(medians: dict[str, list[float]]) -> None:
    """Print the table, with each client's CPU as a share of aiobotocore's."""
    base = medians.get(BASE, [float("nan")])[0]
    print(f"{'client':24}{'CPU µs/message':>16}{'messages/s':>14}{'CPU / ' + BASE:>20}")
    for name, (cpu, rate) in medians.items():
        print(f"{name:24}{cpu:16.1f}{rate:14.0f}{cpu / base:20.3f}")
    ours, theirs = (medians.get(name, [float("nan")])[0] for name in PACKED)
    print(f"\npacked, 50 to a request: tanksend / aiobotocore = {ours / theirs:.3f}")


if __name__ == "__main__":
    sys.exit(main())

"""300,000 and 600,000 messages from a generator: memory stays where it is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

from _figures import Figure, at_most, exactly

_BATCH = """
import json, resource, sys
import anyio
from tanksend import Message, Receipt, Sender

number, different = int(sys.argv[1]), sys.argv[2] == "different"
checkpoint = anyio.lowlevel.checkpoint

class Null:
    paced = False
    async def send(self, request):
        await checkpoint()
        return Receipt("0100018c-null")
    async def aclose(self): pass

def messages(number):
    for index in range(number):
        domain = f"d{index}.example.com" if different else f"d{index % 20}.example.com"
        yield Message(f"user{index}@{domain}", f"Subject {index}", text="Hello " * 50, html="<p>Hello</p>" * 50)

async def main():
    sender = Sender(from_="no-reply@example.com", transport=Null())
    await sender.send_all(messages(2_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = await sender.send_all(messages(number))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([(after - before) / 1024, report.total]))

anyio.run(main)
"""

LIMITS = {"few": 12.0, "different": 20.0}
CONSTANT = 2.0
"""MB by which the peak of twice as many may differ and still be called the same."""


def _peak(number: int, domains: str) -> tuple[float, int]:
    done = subprocess.run(
        [sys.executable, "-c", _BATCH, str(number), domains], capture_output=True, text=True, check=True
    )
    grown, total = json.loads(done.stdout)
    return float(grown), int(total)


def figures() -> Iterator[Figure]:
    """Growth of the peak after a first batch of 2,000, in a process of its own each."""
    for domains, limit in LIMITS.items():
        grown, total = _peak(300_000, domains)
        yield exactly(f"{domains} domains: fates", total, 300_000)
        yield at_most(f"{domains} domains, 300,000: peak memory grew by", grown, limit, " MB")
        twice, _ = _peak(600_000, domains)
        yield at_most(f"{domains} domains, 600,000: more than that by", max(0.0, twice - grown), CONSTANT, " MB")

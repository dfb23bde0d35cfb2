"""Four processes share one account through one Redis: the rate, the shares, a Redis that dies, and who goes first."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _figures import Figure, at_least, at_most, exactly
from _process import RemoteSES, simulated

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from redis_server import RedisServer

PROCESSES = 4
LATENCY = ("--latency", "0.04,0.02")

_WORKER = """
import json, random, sys, time
import anyio
from tanksend import Message, Priority, Sender
from tanksend.limiters import RedisLimiter
from tanksend.transports import Credentials, SESTransport

url, redis, begin, rate, number, urgent, seed = json.loads(sys.argv[1])
gaps = random.Random(seed)
sent, waits, statuses = [], [], {}

def keep(result):
    sent.append(time.time())
    statuses[result.status.name] = statuses.get(result.status.name, 0) + 1

async def hurry(sender):
    for index in range(urgent):
        await anyio.sleep(gaps.expovariate(0.5))
        result = await sender.send(Message(f"now{index}@example.com", "Your code", "1234"))
        waits.append(result.waited)

async def main():
    transport = SESTransport(region="us-east-1", endpoint_url=url, credentials=Credentials("AKIDEXAMPLE", "secret"))
    limiter = RedisLimiter(redis, "proof", rate)
    messages = [Message(f"user{index}@example.com", f"Note {index}", "Hello") for index in range(number)]
    async with Sender(from_="no-reply@example.com", transport=transport, limiter=limiter) as sender:
        await anyio.sleep(max(0.0, begin - time.time()))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hurry, sender)
            await sender.send_all(messages, on_result=keep)
    limiter.close()
    print(json.dumps({"sent": sent, "waits": waits, "statuses": statuses}))

anyio.run(main)
"""


class _Processes:
    """Four senders that begin at the same moment."""

    def __init__(self, ses: RemoteSES, redis: RedisServer, rate: float, number: int, urgent: int = 0) -> None:
        self.begin = time.time() + 4.0
        self._running = [
            subprocess.Popen(
                [
                    sys.executable, "-c", _WORKER,
                    json.dumps([ses.url, redis.url, self.begin, rate, number // PROCESSES, urgent, seed]),
                ],
                stdout=subprocess.PIPE, text=True,
            )
            for seed in range(PROCESSES)
        ]  # fmt: skip

    def results(self) -> list[dict[str, Any]]:
        """What each of them says, once all have ended."""
        said = [process.communicate()[0] for process in self._running]
        assert not any(process.returncode for process in self._running), "a sender failed"
        return [json.loads(text) for text in said]


def _sent(results: list[dict[str, Any]]) -> int:
    return sum(result["statuses"].get("SENT", 0) for result in results)


def _shares(number: int = 2_400, rate: int = 50) -> Iterator[Figure]:
    """The rate, and who got how much of it, until the first of them was done."""
    with simulated("--rate", str(rate), "--daily-quota", "-1", *LATENCY) as ses, RedisServer() as redis:
        results = _Processes(ses, redis, rate, number).results()
        found = ses.figures()
    what = f"{PROCESSES} processes at {rate}/s strict"
    begin = max(min(result["sent"]) for result in results)
    end = min(max(result["sent"]) for result in results)
    counts = [sum(begin <= moment < end for moment in result["sent"]) for result in results]
    yield at_least(f"{what}: use of the rate", sum(counts) / (end - begin) / rate, 0.98)
    yield at_most(f"{what}: throttled of {found['sends']} requests", found["throttled"] / found["sends"], 0.005)
    yield at_least(f"{what}: smallest share", min(counts) / sum(counts), 0.15)
    yield at_most(f"{what}: largest share", max(counts) / sum(counts), 0.35)
    yield exactly(f"{what}: not sent", number - _sent(results), 0)


def _outage(number: int = 1_200, rate: int = 50, begins: float = 8.0, lasts: float = 2.0) -> Iterator[Figure]:
    """Redis is killed in the middle, and comes back with nothing in its memory."""
    down: list[float] = []

    def strike(redis: RedisServer, at: float) -> None:
        time.sleep(max(0.0, at - time.time()))
        down.append(time.time())
        redis.kill()
        time.sleep(lasts)
        redis.start()
        down.append(time.time())

    with simulated("--rate", str(rate), "--daily-quota", "-1", *LATENCY) as ses, RedisServer() as redis:
        processes = _Processes(ses, redis, rate, number)
        striker = threading.Thread(target=strike, args=(redis, processes.begin + begins))
        striker.start()
        results = processes.results()
        striker.join()
        found = ses.figures()
    what = f"Redis killed for {down[1] - down[0]:.1f} s"
    moments = sorted(moment for result in results for moment in result["sent"])
    pause = max(later - earlier for earlier, later in itertools.pairwise(moments))
    yield exactly(f"{what}: not sent", number - _sent(results), 0)
    yield at_most(f"{what}: pause beyond the outage", pause - (down[1] - down[0]), 2.0, " s")
    yield at_most(f"{what}: throttled of {found['sends']} requests", found["throttled"] / found["sends"], 0.005)


def _lanes(number: int = 840, rate: int = 14, urgent: int = 25) -> Iterator[Figure]:
    """Every process sends bulk, and something urgent every two seconds."""
    with simulated("--rate", str(rate), "--daily-quota", "-1", *LATENCY) as ses, RedisServer() as redis:
        results = _Processes(ses, redis, rate, number, urgent).results()
        found = ses.figures()
    what = f"{PROCESSES} processes at {rate}/s, bulk and urgent"
    waits = sorted(wait for result in results for wait in result["waits"])
    moments = sorted(moment for result in results for moment in result["sent"])
    took = len(moments) + len(waits)
    yield at_most(
        f"{what}: 95 % of {len(waits)} urgent ones start within", waits[int(len(waits) * 0.95)], 2 / rate, " s"
    )
    yield at_least(f"{what}: use of the rate", took / (moments[-1] - moments[0]) / rate, 0.98)
    yield at_most(f"{what}: throttled of {found['sends']} requests", found["throttled"] / found["sends"], 0.005)
    yield exactly(f"{what}: not sent", number - _sent(results), 0)


def figures() -> Iterator[Figure]:
    """Real processes, a real Redis, and a simulated account of their own each time."""
    yield from _shares()
    yield from _outage()
    yield from _lanes()

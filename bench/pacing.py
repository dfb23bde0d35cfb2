"""
Who holds the account's rate: one simulated account of 50/s that counts strictly, 40 to 60 ms latency, 600 messages.

Each client is set up as its documentation says for such an account and sends alone. Use of the rate counts what the
account accepted between the first and the last; lost is what the client gave up.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request

RATE, NUMBER = 50, 600

_TANKSEND = f"""
import asyncio, os
from tanksend import Message, Sender
from tanksend.transports import Credentials, SESTransport

async def main():
    transport = SESTransport(region="us-east-1", endpoint_url=os.environ["SES"], credentials=Credentials("AKID", "s"))
    async with Sender(from_="no-reply@example.com", transport=transport) as sender:
        await sender.send_all([Message(f"u{{n}}@example.com", "Hi", "Hello") for n in range({NUMBER})])

asyncio.run(main())
"""

_BOTOCORE = f"""
import os
from concurrent.futures import ThreadPoolExecutor
import botocore.session
from botocore.config import Config

retries = {{"mode": os.environ["MODE"]}} if os.environ.get("MODE") else None
client = botocore.session.get_session().create_client(
    "sesv2", region_name="us-east-1", endpoint_url=os.environ["SES"], config=Config(retries=retries),
    aws_access_key_id="AKID", aws_secret_access_key="s",
)

def send(n):
    try:
        client.send_email(
            FromEmailAddress="no-reply@example.com", Destination={{"ToAddresses": [f"u{{n}}@example.com"]}},
            Content={{"Simple": {{"Subject": {{"Data": "Hi"}}, "Body": {{"Text": {{"Data": "Hello"}}}}}}}},
        )
    except Exception:
        pass

with ThreadPoolExecutor(10) as pool:
    list(pool.map(send, range({NUMBER})))
"""

_AIOBOTOCORE = f"""
import asyncio, os
from aiobotocore.session import get_session
from aiolimiter import AsyncLimiter

async def main():
    limiter = AsyncLimiter({RATE}, 1)
    async with get_session().create_client(
        "sesv2", region_name="us-east-1", endpoint_url=os.environ["SES"],
        aws_access_key_id="AKID", aws_secret_access_key="s",
    ) as client:
        async def send(n):
            async with limiter:
                try:
                    await client.send_email(
                        FromEmailAddress="no-reply@example.com", Destination={{"ToAddresses": [f"u{{n}}@example.com"]}},
                        Content={{"Simple": {{"Subject": {{"Data": "Hi"}}, "Body": {{"Text": {{"Data": "Hello"}}}}}}}},
                    )
                except Exception:
                    pass
        await asyncio.gather(*(send(n) for n in range({NUMBER})))

asyncio.run(main())
"""

PEER = os.environ.get("BENCH_AIOBOTOCORE_PYTHON")
CLIENTS = (
    ("tanksend, as it comes", sys.executable, _TANKSEND, {}),
    ("botocore, 10 threads", sys.executable, _BOTOCORE, {}),
    ("botocore adaptive, 10 threads", sys.executable, _BOTOCORE, {"MODE": "adaptive"}),
    ("aiobotocore, aiolimiter", PEER, _AIOBOTOCORE, {}),
)


def measure(python: str, script: str, settings: dict[str, str]) -> dict[str, float]:
    """Run one client against an account of its own."""
    command = [
        sys.executable,
        "-m",
        "tanksend",
        "simulate",
        "--port",
        "0",
        "--rate",
        str(RATE),
        "--latency",
        "0.05,0.01",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            url = server.stdout.readline().strip()
            subprocess.run([python, "-c", script], check=True, env={**os.environ, "SES": url, **settings})
            with urllib.request.urlopen(f"{url}/_simulator") as answer:  # noqa: S310  (our own, on this machine)
                found: dict[str, float] = json.load(answer)
        finally:
            server.terminate()
            server.stdout.read()
    return found


def report() -> None:
    """Print the table."""
    print(f"\n{NUMBER} messages to an account of {RATE}/s that counts strictly, 40 to 60 ms latency\n")
    print(f"{'client':32}{'use of the rate':>18}{'throttled':>12}{'lost':>8}")
    for name, python, script, settings in CLIENTS:
        if python:
            found = measure(python, script, settings)
            lost = NUMBER - found["accepted"]
            print(f"{name:32}{found['rate'] / RATE:18.3f}{found['throttled']:12.0f}{lost:8.0f}", flush=True)


if __name__ == "__main__":
    report()

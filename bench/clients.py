"""
The clients that are compared, one per call: `clients.py NAME PORT MESSAGES` prints CPU seconds and seconds as JSON.

Each sends personal messages of some 3 KB over TLS, ten in flight, after a warm-up that opens the connections. The CPU
is that of the whole process, threads too. This file imports only what the named client needs: aiobotocore lives in an
environment of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

FLIGHT = 10
WARM_UP = 200
HTML = "<html><body>" + "<p>Dear customer, here is what you asked for.</p>" * 50 + "</body></html>"
TEXT = "Dear customer, here is what you asked for. " * 10
SUBJECT = "Your invoice {{number}}, {{name}}"
FROM = "Tank <no-reply@example.com>"


def contents(number: int) -> Iterator[tuple[str, str, str]]:
    """Recipient, subject and HTML of each message."""
    for index in range(number):
        yield f"user{index}@d{index % 50}.example.com", f"Your invoice {index}", f"{HTML}<!-- {index} -->"


def personal(number: int) -> Iterator[tuple[str, dict[str, str], str, str]]:
    """
    Recipient and data of each message of one template.

    A campaign: each has an unsubscribe link of its own, as Gmail and Yahoo want of bulk mail, and a tag for its events.
    """
    for index in range(number):
        data = {"number": str(index), "name": f"Customer {index}"}
        yield f"user{index}@d{index % 50}.example.com", data, f"https://news.example.com/u/{index}", str(index)


def as_bulk_calls(number: int) -> Iterator[dict[str, Any]]:
    """The arguments of botocore's ``send_bulk_email``, 50 entries each."""
    template = {"Subject": SUBJECT, "Text": TEXT, "Html": HTML}
    default = {"Template": {"TemplateContent": template, "TemplateData": "{}"}}
    everybody = iter(personal(number))
    while some := list(itertools.islice(everybody, 50)):
        entries = [
            {
                "Destination": {"ToAddresses": [to]},
                "ReplacementEmailContent": {"ReplacementTemplate": {"ReplacementTemplateData": json.dumps(data)}},
                "ReplacementHeaders": [
                    {"Name": "List-Unsubscribe", "Value": f"<{link}>"},
                    {"Name": "List-Unsubscribe-Post", "Value": "List-Unsubscribe=One-Click"},
                ],
                "ReplacementTags": [{"Name": "customer", "Value": customer}],
            }
            for to, data, link, customer in some
        ]
        yield {"FromEmailAddress": FROM, "DefaultContent": default, "BulkEmailEntries": entries}


def as_call(recipient: str, subject: str, html: str) -> dict[str, Any]:
    """The arguments of botocore's ``send_email``."""
    return {
        "FromEmailAddress": FROM,
        "Destination": {"ToAddresses": [recipient]},
        "Content": {"Simple": {"Subject": {"Data": subject}, "Body": {"Text": {"Data": TEXT}, "Html": {"Data": html}}}},
    }


async def tanksend_client(url: str, number: int) -> tuple[float, float]:
    """The whole path of `Sender`: intake, validation, suppression, pace, transport, report."""
    from tanksend import Message, Sender
    from tanksend.limiters import TokenBucketLimiter
    from tanksend.transports import Credentials, SESTransport

    def messages(number: int) -> Iterator[Message]:
        for recipient, subject, html in contents(number):
            yield Message(recipient, subject, text=TEXT, html=html)

    transport = SESTransport(region="us-east-1", endpoint_url=url, credentials=Credentials("AKID", "secret"))
    limiter = TokenBucketLimiter(float("inf"))
    async with Sender(from_=FROM, transport=transport, limiter=limiter, max_parallel=FLIGHT) as sender:
        await sender.send_all(list(messages(WARM_UP)))
        with_list = list(messages(number))
        cpu, began = time.process_time(), time.perf_counter()
        report = await sender.send_all(with_list)
        spent = time.process_time() - cpu, time.perf_counter() - began
    if not report.ok:
        raise RuntimeError(str(report))
    return spent


async def tanksend_packed(url: str, number: int) -> tuple[float, float]:
    """The whole path again, for messages of one inline template."""
    from tanksend import Message, Sender, Template, Unsubscribe
    from tanksend.limiters import TokenBucketLimiter
    from tanksend.transports import Credentials, SESTransport

    template = Template(subject=SUBJECT, text=TEXT, html=HTML)

    def messages(number: int) -> list[Message]:
        return [
            Message.from_template(
                template, to=to, data=data, unsubscribe=Unsubscribe(url=link), tags={"customer": customer}
            )
            for to, data, link, customer in personal(number)
        ]

    transport = SESTransport(region="us-east-1", endpoint_url=url, credentials=Credentials("AKID", "secret"))
    limiter = TokenBucketLimiter(float("inf"))
    async with Sender(from_=FROM, transport=transport, limiter=limiter, max_parallel=FLIGHT) as sender:
        await sender.send_all(messages(WARM_UP))
        with_list = messages(number)
        cpu, began = time.process_time(), time.perf_counter()
        report = await sender.send_all(with_list)
        spent = time.process_time() - cpu, time.perf_counter() - began
    if not report.ok:
        raise RuntimeError(str(report))
    return spent


async def aiobotocore_client(url: str, number: int) -> tuple[float, float]:
    """The usual loop: ten tasks that take from one iterator."""
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session

    config = AioConfig(max_pool_connections=FLIGHT, retries={"total_max_attempts": 1})
    async with get_session().create_client(
        "sesv2", region_name="us-east-1", endpoint_url=url, config=config,
        aws_access_key_id="AKID", aws_secret_access_key="secret",
    ) as client:  # fmt: skip

        async def take(calls: Iterator[dict[str, Any]]) -> None:
            for call in calls:
                answer = await client.send_email(**call)
                if not answer["MessageId"]:
                    raise RuntimeError("no message id")

        async def send(number: int) -> tuple[float, float]:
            calls = iter([as_call(*content) for content in contents(number)])
            cpu, began = time.process_time(), time.perf_counter()
            await asyncio.gather(*(take(calls) for _ in range(FLIGHT)))
            return time.process_time() - cpu, time.perf_counter() - began

        await send(WARM_UP)
        return await send(number)


async def aiobotocore_packed(url: str, number: int) -> tuple[float, float]:
    """Ten tasks that call ``send_bulk_email`` with 50 entries each."""
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session

    config = AioConfig(max_pool_connections=FLIGHT, retries={"total_max_attempts": 1})
    async with get_session().create_client(
        "sesv2", region_name="us-east-1", endpoint_url=url, config=config,
        aws_access_key_id="AKID", aws_secret_access_key="secret",
    ) as client:  # fmt: skip

        async def take(calls: Iterator[dict[str, Any]]) -> None:
            for call in calls:
                answer = await client.send_bulk_email(**call)
                if not all(entry["MessageId"] for entry in answer["BulkEmailEntryResults"]):
                    raise RuntimeError("no message id")

        async def send(number: int) -> tuple[float, float]:
            calls = iter(list(as_bulk_calls(number)))
            cpu, began = time.process_time(), time.perf_counter()
            await asyncio.gather(*(take(calls) for _ in range(FLIGHT)))
            return time.process_time() - cpu, time.perf_counter() - began

        await send(WARM_UP)
        return await send(number)


def botocore_client(url: str, number: int) -> tuple[float, float]:
    """Ten threads around one client."""
    from concurrent.futures import ThreadPoolExecutor

    import botocore.session
    from botocore.config import Config

    config = Config(max_pool_connections=FLIGHT, retries={"total_max_attempts": 1})
    client = botocore.session.get_session().create_client(
        "sesv2", region_name="us-east-1", endpoint_url=url, config=config,
        aws_access_key_id="AKID", aws_secret_access_key="secret",
    )  # fmt: skip
    with ThreadPoolExecutor(FLIGHT) as pool:

        def send(number: int) -> tuple[float, float]:
            calls = [as_call(*content) for content in contents(number)]
            cpu, began = time.process_time(), time.perf_counter()
            for answer in pool.map(lambda call: client.send_email(**call), calls):
                if not answer["MessageId"]:
                    raise RuntimeError("no message id")
            return time.process_time() - cpu, time.perf_counter() - began

        send(WARM_UP)
        return send(number)


def _asyncio(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    return asyncio.run(function(*args))  # type: ignore[arg-type]


def _uvloop(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    import uvloop

    return uvloop.run(function(*args))  # type: ignore[arg-type]


def _trio(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    import trio

    return trio.run(function, *args)


CLIENTS: dict[str, Callable[[str, int], tuple[float, float]]] = {
    "tanksend, asyncio": lambda url, number: _asyncio(tanksend_client, url, number),
    "tanksend, uvloop": lambda url, number: _uvloop(tanksend_client, url, number),
    "tanksend, trio": lambda url, number: _trio(tanksend_client, url, number),
    "aiobotocore": lambda url, number: _asyncio(aiobotocore_client, url, number),
    "aiobotocore, uvloop": lambda url, number: _uvloop(aiobotocore_client, url, number),
    "botocore, 10 threads": botocore_client,
    "tanksend, packed": lambda url, number: _asyncio(tanksend_packed, url, number),
    "aiobotocore, packed": lambda url, number: _asyncio(aiobotocore_packed, url, number),
}

if __name__ == "__main__":
    print(json.dumps(CLIENTS[sys.argv[1]](f"https://127.0.0.1:{sys.argv[2]}", int(sys.argv[3]))))

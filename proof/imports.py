"""What `import tanksend` costs, and what it leaves alone."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

from _figures import Figure, at_most, exactly

_IMPORT = """
import json, sys, time
import attrs, anyio
began = time.perf_counter()
import tanksend
cost = time.perf_counter() - began
unwanted = [name for name in ("botocore", "dns", "boto3") if name in sys.modules]
print(json.dumps([cost * 1000, unwanted]))
"""

_FIRST_MAIL = """
import json, sys
from tanksend import Message, SyncSender
from tanksend.testing import SimulatedSES
with SimulatedSES() as ses:
    sender = SyncSender(from_="no-reply@example.com", region="us-east-1", endpoint_url=ses.url)
    sender.send(Message("kim@example.com", "Hi", "Hello"))
    print(json.dumps([len(ses.inbox), [name for name in ("botocore", "dns") if name in sys.modules]]))
"""


def _python(script: str, **environment: str) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    found: list[object] = json.loads(done.stdout)
    return found


def figures() -> Iterator[Figure]:
    """Median of eleven fresh interpreters."""
    costs = []
    unwanted: list[object] = []
    for _ in range(11):
        cost, modules = _python(_IMPORT)
        costs.append(float(str(cost)))
        unwanted.extend(modules if isinstance(modules, list) else [])
    yield at_most("import tanksend above attrs and anyio", statistics.median(costs), 30.0, " ms")
    yield exactly("botocore or dnspython after it", unwanted, [])
    keys = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret"}
    accepted, modules = _python(_FIRST_MAIL, **keys)
    yield exactly("first mail with keys from the environment: accepted", accepted, 1)
    yield exactly("botocore or dnspython after it", modules, [])

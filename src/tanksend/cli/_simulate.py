"""``tanksend simulate``: a simulated SES for programs in any language, until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import signal
import threading
from typing import TYPE_CHECKING, Any

from ..testing import Credential, Faults, SimulatedSES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_DEFAULT_PORT = 8579
_GLANCE = 0.5
_LAST_PORT = 65_535


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM, then print what came; `argv` is without the program's name."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        ses = _simulator(options)
        with _end_by_signal() as over, ses:
            print(_greeting(ses), flush=True)
            # A wait without a limit would keep Windows from noticing Ctrl-C.
            while not over.wait(_GLANCE):
                pass
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(_summary(ses), flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tanksend simulate",
        description="A simulated Amazon SES on this machine. It enforces its quotas and can lose answers on purpose.",
        epilog="Figures at any time: GET /_simulator.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
    add("--port", type=_port, default=_DEFAULT_PORT, help="0 takes a free one (default: %(default)s)")
    add("--rate", type=_quota, help="recipients per second, -1 for unlimited (default: 14; 1 in the sandbox)")
    add("--mode", choices=("strict", "debt"), default="strict", help="how the rate is enforced (default: %(default)s)")
    add("--daily-quota", type=_quota, help="recipients per 24 hours, -1 for unlimited (default: 50000; sandbox 200)")
    add("--sent-before", type=int, default=0, help="recipients already sent in the last 24 hours")
    add("--sandbox", action="store_true", help="only verified recipients can be written to")
    add("--identity", action="append", metavar="NAME", help="a verified address or domain; may be repeated")
    add("--region", default="us-east-1", help="default: %(default)s")
    add("--deny", action="append", default=[], metavar="ACTION", help="refuse an IAM action such as ses:SendEmail")
    add(
        "--credential",
        action="append",
        default=[],
        type=_credential,
        metavar="KEY:SECRET[:TOKEN]",
        help="verify signatures by these",
    )
    add(
        "--faults",
        default={},
        type=_chances,
        metavar="NAME=CHANCE,...",
        help="for example reset-after=0.02,500=0.01",
    )
    add("--seed", type=int, default=0, help="of faults and latencies")
    add(
        "--latency",
        default=0.0,
        type=_latency,
        metavar="SECONDS[,SPREAD]",
        help="from a request to its answer, as 0.04,0.02",
    )
    add("--close-after", type=int, metavar="N", help="close each connection after N answers")
    add("--idle-timeout", type=float, metavar="SECONDS", help="close connections that are idle")
    add("--smtp-port", type=_port, metavar="PORT", help="speak SMTP there, too; 0 takes a free one")
    add("--tls", nargs=2, metavar=("CERTFILE", "KEYFILE"), help="speak HTTPS")
    add("--keep-bodies", action="store_true", help="keep each request in memory")
    return parser


def _simulator(options: argparse.Namespace) -> SimulatedSES:
    quotas: dict[str, Any] = {"rate": options.rate, "daily_quota": options.daily_quota}
    return SimulatedSES(
        **{name: value for name, value in quotas.items() if value is not None},
        host=options.host,
        port=options.port,
        mode=options.mode,
        sent_before=options.sent_before,
        sandbox=options.sandbox,
        identities=options.identity,
        region=options.region,
        deny=options.deny,
        verify_signatures=bool(options.credential),
        credentials=dict(options.credential),
        faults=Faults(probability=options.faults, seed=options.seed),
        seed=options.seed,
        latency=options.latency,
        close_after_requests=options.close_after,
        idle_timeout=options.idle_timeout,
        smtp_port=options.smtp_port,
        tls=tuple(options.tls) if options.tls else None,
        keep_bodies=options.keep_bodies,
    )


# Values of options. Each error says what is wanted, and repeats nothing: a secret may be a part of it.


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= _LAST_PORT):
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {_LAST_PORT}")
    return int(text)


def _quota(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if number != -1 and not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError("must be a number from 0 on, or -1 for unlimited")
    return number


def _chances(text: str) -> dict[str, float]:
    pairs = (pair.partition("=") for pair in text.split(",") if pair.strip())
    try:
        return {name.strip(): float(chance) for name, _, chance in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError("must be NAME=CHANCE, or several of these with commas between") from None


def _latency(text: str) -> float | tuple[float, float]:
    middle, comma, spread = text.partition(",")
    try:
        return (float(middle), float(spread)) if comma else float(middle)
    except ValueError:
        raise argparse.ArgumentTypeError("must be seconds, or seconds and their spread with a comma between") from None


def _credential(text: str) -> tuple[str, Credential]:
    key, _, rest = text.partition(":")
    secret, _, token = rest.partition(":")
    if not (key and secret):
        raise argparse.ArgumentTypeError("must be KEY:SECRET or KEY:SECRET:TOKEN")
    return key, Credential(secret, token=token or None)


def _greeting(ses: SimulatedSES) -> str:
    quota = "unlimited" if ses.daily_quota < 0 else f"{ses.daily_quota:g} recipients per 24 hours"
    rate = "unlimited" if ses.rate < 0 else f"{ses.rate:g} recipients per second ({ses.mode})"
    lines = [
        ses.url,
        f"A simulated Amazon SES, {ses.region}: {rate}, {quota}. Point a program at it with",
        f"  export AWS_ENDPOINT_URL_SESV2={ses.url} AWS_REGION={ses.region}",
        "Ctrl-C ends it and prints what came.",
    ]
    if ses.smtp_port is not None:
        lines.insert(-1, f"SMTP is spoken at port {ses.smtp_port}.")
    return "\n".join(lines)


@contextlib.contextmanager
def _end_by_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, while this lasts."""
    over = threading.Event()
    before = {number: signal.signal(number, lambda *_: over.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield over
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _summary(ses: SimulatedSES) -> str:
    return json.dumps(ses.figures(), indent=2, sort_keys=True)

"""Whole processes: how they end, fork and are interrupted. Each test runs scripts of its own, on its own Python."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from queue import Empty

import pytest

from tanksend.testing import SimulatedSES

LONG = float(os.environ.get("PATIENCE", "150"))
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and forks as POSIX has them")

PRELUDE = """
import json, os, signal, sys, threading, time
if os.environ.get("LOOP") == "asyncio":
    sys.modules["uvloop"] = None  # As if it were not installed.
signal.signal(signal.SIGINT, signal.default_int_handler)
from tanksend import Message, Sender, Status, SyncSender, _loop_thread
from tanksend._engine import _run
from tanksend.exceptions import SendError
from tanksend.limiters import TokenBucketLimiter
from tanksend.testing import RecordingTransport

FROM = "Tank <no-reply@yokee.co.id>"

# What a machine makes of it that stands still for seconds is not asked here.
_run.GRACE_SECONDS = _loop_thread.EXIT_SECONDS = _loop_thread.FORK_SECONDS = 100.0

def new(kind=SyncSender, **options):
    if "transport" not in options:
        options["endpoint_url"] = os.environ["ENDPOINT"]
    return kind(from_=FROM, **options)

def message(number=0, subject="Hi"):
    return Message(f"p{number}@example.com", subject, "Hello")

def messages(number, subject="Hi"):
    return (message(each, subject) for each in range(number))

def say(*what):
    os.write(1, json.dumps(what).encode() + b"\\n")

def counts(report):
    return {status.value: number for status, number in report.counts.items() if number}

class Countdown:
    # A C iterator: what it has given can be told exactly, whenever it was interrupted.
    def __init__(self, number):
        self._all = [message(each) for each in range(number)]
        self._iterator = iter(self._all)

    def __iter__(self):
        return self._iterator

    @property
    def pulled(self):
        return len(self._all) - self._iterator.__length_hint__()
"""


class Script:
    """A process that runs a script and says something now and then, in lines of JSON."""

    def __init__(self, text: str, env: dict[str, str]) -> None:
        command = [sys.executable, "-c", PRELUDE + textwrap.dedent(text)]
        # In a session of its own, so that its children can be ended with it.
        self._process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self._errors: list[str] = []
        self._reader = threading.Thread(target=lambda: self._errors.extend(self._process.stderr))
        self._reader.start()
        # It then says where it hangs.
        self._patience = threading.Timer(LONG, self._kill, [signal.SIGABRT])
        self._patience.start()

    def _kill(self, how: int = signal.SIGKILL) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, how)

    def said(self) -> list:
        """The next line."""
        line = self._process.stdout.readline()
        assert line, self.errors()
        return json.loads(line)

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def errors(self) -> str:
        """What it wrote to stderr; it has ended."""
        self._process.wait()
        self._reader.join()
        text = "".join(self._errors)
        sys.stderr.write(text)  # For who looks at a failure.
        return text

    def end(self, code: int = 0) -> list[list]:
        """Wait for the end. What it had still to say."""
        rest = self._process.stdout.read().splitlines()
        assert code == self._process.wait(), self.errors()
        self.errors()
        return [json.loads(line) for line in rest]

    def close(self) -> None:
        """Leave nothing behind."""
        self._patience.cancel()
        self._kill()
        self._process.wait()
        self._reader.join()
        self._process.stdout.close()
        self._process.stderr.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory, request):
    """A server's TLS context, and the file that makes clients trust it."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    bundle = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    return context, bundle


@pytest.fixture
def ses(certificate):
    """A simulated SES over TLS."""
    with SimulatedSES(rate=20_000, tls=certificate[0]) as ses:
        yield ses


@pytest.fixture
def env(ses, certificate):
    """What a process needs to send through it."""
    return environment(ses, certificate)


def environment(ses, certificate, **more):
    """The credentials and the way to *ses* that a machine of AWS's would have."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "COV_"))}
    aws = {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": ses.region,
        "AWS_CA_BUNDLE": str(certificate[1]),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "ENDPOINT": ses.url,
        "PYTHONFAULTHANDLER": "1",
        "NO_PROXY": "*",
    }
    return {**kept, **aws, **more}


@pytest.fixture
def run():
    """Start scripts that end with the test."""
    scripts = []

    def start(text: str, env: dict[str, str]) -> Script:
        scripts.append(Script(text, env))
        return scripts[-1]

    yield start
    for script in scripts:
        script.close()


def delivered(ses, subject: str | None = None) -> int:
    """How many different messages arrived; none of them twice."""
    assert {} == ses.inbox.doubled()
    return sum(item.subject == subject for item in ses.inbox) if subject else len(ses.inbox)


def arrived(ses, number: int) -> None:
    """Wait until so many requests are at the server."""
    impatient = time.monotonic() + LONG
    while ses.counts.sends < number:
        assert time.monotonic() < impatient
        time.sleep(0.001)


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_script_that_never_closes_ends(run, ses, env, loop, needs):
    """Quietly, with its connections open, with and without uvloop."""
    if loop == "uvloop":
        needs("uvloop")
    script = run(
        """
        sender = new()
        say(counts(sender.send_all(messages(200))))
        say(type(sender._loop._room._loop).__module__)
        """,
        {**env, "LOOP": loop, "PYTHONWARNINGS": "always"},
    )
    assert [[{"sent": 200}], [loop if loop == "uvloop" else "asyncio.unix_events"]] == script.end()
    assert (200, "") == (delivered(ses), script.errors())


def test_a_script_that_dies_in_the_middle_of_a_batch_ends(run, ses, env):
    """Its error comes out, and what was on the wire has arrived and been counted."""
    script = run(
        """
        import atexit
        sender = new()
        atexit.register(lambda: say(counts(sender.last_report)))
        with sender.stream(messages(100_000)) as results:
            for number, result in enumerate(results):
                if number == 100:
                    raise LookupError("no such row")
        """,
        env,
    )
    ((ends,),) = script.end(code=1)
    assert "LookupError: no such row" in script.errors()
    assert {"sent", "held"} == set(ends)
    assert ends["sent"] == delivered(ses)


def test_a_batch_goes_on_when_only_the_main_thread_has_ended(run, certificate, needs):
    """Its thread keeps the process; new connections need name look-ups, which then must still be possible."""
    with SimulatedSES(rate=20_000, tls=certificate[0], close_after_requests=20) as ses:
        endpoint = ses.url.replace("127.0.0.1", "localhost")
        script = run(
            """
            sender = new()
            sender.send(message(1_000))
            ended = threading.Event()

            def work():
                ended.wait()
                say(counts(sender.send_all(messages(300))))

            threading.Thread(target=work).start()
            threading._register_atexit(ended.set)  # The main thread has ended, and executors take no more work.
            """,
            environment(ses, certificate, ENDPOINT=endpoint, LOOP="asyncio"),
        )
        assert [[{"sent": 300}]] == script.end()
        assert 301 == delivered(ses)


def test_the_exit_stops_batches_of_daemon_threads(run, certificate):
    """What is on the wire arrives and is told to observers; nothing more is sent."""
    with SimulatedSES(rate=20_000, tls=certificate[0], latency=0.1) as ses:
        script = run(
            """
            class Observer:
                def on_event(self, event):
                    if event.result is not None:
                        say(event.result.status.value)
                        if event.result.index == 30:
                            go_on.set()

            go_on = threading.Event()
            sender = new(observers=[Observer()])
            threading.Thread(target=lambda: sender.send_all(messages(100_000)), daemon=True).start()
            go_on.wait()
            """,
            environment(ses, certificate),
        )
        fates = [fate for (fate,) in script.end()]
        assert {"sent", "held"} == set(fates)
        assert fates.count("sent") == delivered(ses)


def test_the_exit_does_not_wait_for_a_daemon_thread_that_is_blocked(run, env):
    """Its iterable may never give anything again."""
    script = run(
        """
        def blocked():
            yield message()
            say("blocked")
            is_blocked.set()
            while True:
                time.sleep(0.1)

        is_blocked = threading.Event()
        sender = new()
        threading.Thread(target=lambda: sender.send_all(blocked()), daemon=True).start()
        is_blocked.wait()
        """,
        env,
    )
    assert [["blocked"]] == script.end()


def test_a_sender_made_and_dropped_again_and_again_leaves_nothing(run, ses, env):
    """As a web application does that makes one for each request and closes none."""
    script = run(
        """
        for number in range(20):
            new().send(message(number))
        for thread in threading.enumerate():
            if thread.daemon:
                thread.join()
        say(threading.active_count())
        """,
        {**env, "PYTHONWARNINGS": "always"},
    )
    assert [[1]] == script.end()
    assert (20, "") == (delivered(ses), script.errors())


# --- fork -------------------------------------------------------------------------------------------------------------

CHILDREN = """
def fork(work, leave=os._exit):
    pid = os.fork()
    if pid == 0:
        signal.alarm(120)
        try:
            work()
        except BaseException as error:
            say(type(error).__name__, str(error))
            os._exit(1)
        leave(0)
    return pid

def ended_well(*children):
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
"""


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_parent_and_child_both_go_on_after_a_fork(run, ses, env, loop):
    """The pool was warm: neither speaks on the other's connections, however the child ends."""
    script = run(
        CHILDREN
        + textwrap.dedent(
            """
            sender = new()
            sender.send_all(messages(50, "before"))

            def child(subject):
                def work():
                    say(counts(sender.send_all(messages(100, subject))))
                    sender.send(message(1_000, subject))
                return work

            children = [fork(child("hard")), fork(child("soft"), sys.exit)]
            say(counts(sender.send_all(messages(300, "parent"))))
            grandchildren = fork(lambda: (child("middle")(), ended_well(fork(child("grandchild")))))
            say(ended_well(*children, grandchildren))
            say(counts(sender.send_all(messages(100, "after"))))
            sender.close()
            """
        ),
        {**env, "LOOP": loop, "PYTHONWARNINGS": "ignore::DeprecationWarning"},
    )
    said = script.end()
    assert [0, 0, 0] in [line[0] for line in said]
    assert 4 * [[{"sent": 100}]] + [[{"sent": 100}]] == [line for line in said if line == [{"sent": 100}]]
    assert [{"sent": 300}] in said
    expected = {"before": 50, "parent": 300, "after": 100}
    expected |= dict.fromkeys(["hard", "soft", "middle", "grandchild"], 101)
    assert expected == {subject: delivered(ses, subject) for subject in expected}
    assert "" == script.errors()


def test_forks_in_the_middle_of_a_batch_disturb_nobody(run, ses, env):
    """One thread sends all the time, another forks: no child waits for a lock that nobody holds any more."""
    script = run(
        CHILDREN
        + textwrap.dedent(
            """
            class Slow(TokenBucketLimiter):
                # Most of the time its lock is held.
                lock = threading.Lock()

                async def feedback(self, signal):
                    with self.lock:
                        time.sleep(0.0005)

            def endless():
                number = 0
                while not stop:
                    number += 1
                    yield message(number, "parent")

            stop = False
            sender = new(limiter=Slow(20_000, burst=100))
            sender.send(message(0, "parent"))
            reports = []
            thread = threading.Thread(target=lambda: reports.append(sender.send_all(endless())))
            thread.start()
            children = []
            for number in range(20):
                sender.send(message(-number, "main"))
                children.append(fork(lambda: sender.send(message(number, "child"))))
            say(ended_well(*children))
            stop = True
            thread.join()
            say(counts(reports[0]), reports[0].total)
            """
        ),
        {**env, "PYTHONWARNINGS": "ignore::DeprecationWarning"},
    )
    (children,), (fates, total) = script.end()
    assert 20 * [0] == children
    assert {"sent": total} == fates
    assert (20, 20, total + 1) == tuple(delivered(ses, subject) for subject in ("child", "main", "parent"))


def test_a_process_of_multiprocessing_sends(run, ses, env, tmp_path):
    """Forked, with the parent's sender in its globals."""
    path = tmp_path / "script.py"
    text = """
        import multiprocessing

        sender = new()

        def work(number):
            return sender.send(message(number, "child")).status.value

        if __name__ == "__main__":
            sender.send_all(messages(50, "parent"))
            with multiprocessing.get_context("fork").Pool(2) as pool:
                say(pool.map(work, range(20)))
            process = multiprocessing.get_context("fork").Process(target=work, args=(20,))
            process.start()
            process.join()
            say(process.exitcode)
            say(sender.send(message(50, "parent")).status.value)
        """
    path.write_text(PRELUDE + textwrap.dedent(text))
    script = run(f"exec(compile(open({str(path)!r}).read(), {str(path)!r}, 'exec'))", env)
    assert [[20 * ["sent"]], [0], ["sent"]] == script.end()
    assert (21, 51) == (delivered(ses, "child"), delivered(ses, "parent"))


def test_a_batch_belongs_to_the_process_that_began_it(run, ses, env):
    """A child that is forked in its middle cannot take part in it, and can leave it."""
    script = run(
        CHILDREN
        + textwrap.dedent(
            """
            sender = new()

            def child():
                try:
                    with results:
                        list(results)
                except RuntimeError as error:
                    say("once" in str(error))
                try:
                    while True:
                        next(results)
                except RuntimeError as error:
                    say("forked" in str(error))
                results.__exit__(None, None, None)
                say(sender.send(message(0, "child")).status.value)

            with sender.stream(messages(3_000)) as results:
                for number, result in enumerate(results):
                    if number == 500:
                        say(ended_well(fork(child)))
            say(counts(results.report))
            """
        ),
        {**env, "PYTHONWARNINGS": "ignore::DeprecationWarning"},
    )
    assert [[True], [True], ["sent"], [[0]], [{"sent": 3_000}]] == script.end()
    assert (1, 3_000) == (delivered(ses, "child"), delivered(ses, "Hi"))


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------

INTERRUPTED = """
sender = new()
source = Countdown(40_000)
told = []

def on_result(result):
    if result.index == 100:
        say("ready")

try:
    sender.send_all({messages}, on_result=on_result, save_to=os.environ["ROWS"])
except KeyboardInterrupt:
    report = sender.last_report
    say(counts(report), report.total, source.pulled)
    say(sender.send(message(0, "afterwards")).status.value)
"""


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_ctrl_c_lets_what_is_on_the_wire_end(run, certificate, loop, tmp_path):
    """KeyboardInterrupt comes out; sent and held add up to what was pulled, and SES has what was sent."""
    rows = tmp_path / "rows.csv"
    with SimulatedSES(rate=20_000, tls=certificate[0], latency=0.1) as ses:
        env = environment(ses, certificate, LOOP=loop, ROWS=str(rows))
        script = run(INTERRUPTED.replace("{messages}", "source"), env)
        assert ["ready"] == script.said()
        script.interrupt()
        (fates, total, pulled), afterwards = script.end()
        assert ["sent"] == afterwards
        assert {"sent", "held"} == set(fates)
        assert (total, total) == (pulled, sum(fates.values()))
        assert (fates["sent"], 1) == (delivered(ses, "Hi"), delivered(ses, "afterwards"))
    lines = rows.read_text().splitlines()
    assert (total, fates["sent"]) == (len(lines) - 1, sum(",sent," in line for line in lines))


def test_ctrl_c_stops_a_list_too(run, certificate, tmp_path):
    """All of a list was handed in; what of it was begun has its fate."""
    with SimulatedSES(rate=20_000, tls=certificate[0], latency=0.1) as ses:
        env = environment(ses, certificate, ROWS=str(tmp_path / "rows.csv"))
        script = run(INTERRUPTED.replace("{messages}", "source._all"), env)
        assert ["ready"] == script.said()
        script.interrupt()
        (fates, total, _), _ = script.end()
        assert (total, fates["sent"]) == (sum(fates.values()), delivered(ses, "Hi"))
        assert 0 < fates["held"]


def test_a_second_ctrl_c_ends_the_wait_for_answers(run, certificate):
    """What is on the wire is unknown then, and known to be."""
    with SimulatedSES(rate=20_000, tls=certificate[0], latency=3_600.0) as ses:
        script = run(
            """
            _run.GRACE_SECONDS = 3_600.0  # Only the second interrupt can end it.

            class Observer:
                def on_event(self, event):
                    if event.result is not None and event.result.status is Status.HELD and not told:
                        told.append(say("stopping"))

            told = []
            sender = new(limiter=TokenBucketLimiter(1_000), observers=[Observer()])

            try:
                sender.send_all(messages(100_000))
            except KeyboardInterrupt:
                report = sender.last_report
                say(counts(report), report.total)
            """,
            environment(ses, certificate),
        )
        arrived(ses, 1)
        script.interrupt()
        assert ["stopping"] == script.said()
        script.interrupt()
        ((fates, total),) = script.end()
        assert {"unknown": 1, "held": total - 1} == fates
        assert 1 == delivered(ses)


def test_ctrl_c_ends_an_iterable_that_blocks(run, ses, env):
    """Its next message may be hours away; all before it are done."""
    script = run(
        """
        def blocked():
            yield from messages(300)
            say("blocked")
            while True:
                time.sleep(0.1)

        sender = new()
        try:
            sender.send_all(blocked())
        except KeyboardInterrupt:
            say(counts(sender.last_report))
        """,
        env,
    )
    assert ["blocked"] == script.said()
    script.interrupt()
    ((fates,),) = script.end()
    assert 300 == sum(fates.values())
    assert fates.get("sent", 0) == delivered(ses)


def test_ctrl_c_ends_a_single_send(run, certificate):
    """The request on the wire is waited for, and the sender can be used again."""
    struck = threading.Event()

    class Holding(SimulatedSES):
        def exchange(self, request, fault=None):
            taken = super().exchange(request, fault)
            if self.counts.sends == 2:
                struck.wait(60)
            return taken

    with Holding(rate=20_000, tls=certificate[0]) as ses:
        script = run(
            """
            def interrupt(*_):
                say("struck")
                raise KeyboardInterrupt

            signal.signal(signal.SIGINT, interrupt)

            class Observer:
                def on_event(self, event):
                    say(event.result.status.value)

            sender = new(observers=[Observer()])
            sender.send(message(0))
            say("ready")
            try:
                sender.send(message(1))
            except KeyboardInterrupt:
                say("interrupted")
            sender.send(message(2))
            """,
            environment(ses, certificate),
        )
        assert [["sent"], ["ready"]] == [script.said(), script.said()]
        arrived(ses, 2)
        script.interrupt()
        assert ["struck"] == script.said()
        struck.set()
        assert [["sent"], ["interrupted"], ["sent"]] == script.end()
        assert 3 == delivered(ses)


def test_an_interrupt_at_any_moment_leaves_a_sender_whole(run, env):
    """Some hundred of them, at whatever moment a timer strikes: nothing is lost, doubled or left running."""
    script = run(
        """
        import random

        def interrupt(*_):
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, interrupt)
        transport = RecordingTransport()
        sender = new(transport=transport)
        sender.send_all(Countdown(5))  # imports come first: an interrupt in the middle of one is Python's own trouble
        struck = 0
        for number in range(400):
            if number % 10 == 0:
                sender.close()
            source = Countdown(150)
            sender._sender.last_report = None
            del transport.sent[:]
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00001, 0.008))
                    if number % 3 == 0:
                        with sender.stream(source) as results:
                            for _ in range(number % 7):
                                next(results)
                    else:
                        sender.send_all(source)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                struck += 1
            # Struck at the very first step out of a block, it is stopped when the stream is forgotten.
            results = None
            for call in tuple(sender._loop._room.calls) if sender._loop.running else ():
                call.wait()
            report = sender.last_report
            if report is not None:
                assert source.pulled == report.total, (number, source.pulled, report)
                assert len(transport.sent) == report.counts[Status.SENT], number
        say(struck > 50)
        """,
        env,
    )
    assert [[True]] == script.end()


@pytest.mark.parametrize("loop", ["asyncio.run", "trio"])
def test_ctrl_c_stops_an_async_batch(run, certificate, loop, tmp_path):
    """Under the loop's own handling of interrupts."""
    with SimulatedSES(rate=20_000, tls=certificate[0], latency=0.1) as ses:
        script = run(
            """
            import anyio, asyncio
            sender = new(Sender)

            async def main():
                def on_result(result):
                    if result.index == 100:
                        say("ready")
                await sender.send_all(messages(100_000), on_result=on_result)

            try:
                if os.environ["HOW"] == "trio":
                    anyio.run(main, backend="trio")
                else:
                    asyncio.run(main())
            except (KeyboardInterrupt, BaseExceptionGroup):  # Trio groups one that hit a nursery of its own.
                say(counts(sender.last_report), sender.last_report.total)
            """,
            environment(ses, certificate, HOW=loop),
        )
        assert ["ready"] == script.said()
        script.interrupt()
        ((fates, total),) = script.end()
        assert total == sum(fates.values())
        assert fates["sent"] <= delivered(ses) <= fates["sent"] + fates.get("unknown", 0)


# --- iterables that belong to a thread --------------------------------------------------------------------------------


def test_a_generator_over_a_database_cursor(run, ses, env, tmp_path):
    """sqlite3 refuses to be touched by any other thread than the one that connected."""
    script = run(
        """
        import sqlite3
        database = sqlite3.connect(os.environ["DATABASE"])
        database.execute("create table people (number integer)")
        database.executemany("insert into people values (?)", [(number,) for number in range(2_000)])
        sender = new()

        def people():
            cursor = database.execute("select number from people order by number")
            try:
                for (number,) in cursor:
                    yield message(number)
            finally:
                cursor.close()
                say("closed")

        mark = database.cursor()
        say(counts(sender.send_all(people(), on_result=lambda r: mark.execute("select ?", (r.index,)))))
        with sender.stream(people()) as results:
            next(results)
        """,
        {**env, "DATABASE": str(tmp_path / "people.db")},
    )
    assert [["closed"], [{"sent": 2_000}], ["closed"]] == script.end()


# --- notebooks --------------------------------------------------------------------------------------------------------


class Kernel:
    """A real Jupyter kernel with cells to run."""

    def __init__(self, env: dict[str, str]) -> None:
        from jupyter_client.manager import KernelManager

        self._manager = KernelManager()
        self._manager.start_kernel(env=env)
        self._client = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=LONG)

    def begin(self, cell: str) -> str:
        """Start a cell."""
        return self._client.execute(textwrap.dedent(cell))

    def see(self, cell: str, text: str) -> None:
        """Wait until a running cell has printed *text*."""
        seen = ""
        while text not in seen:
            message = self._client.get_iopub_msg(timeout=LONG)
            if message["parent_header"].get("msg_id") == cell:
                seen += message["content"].get("text", "")

    def end(self, cell: str) -> dict:
        """Wait for the end of a cell, and what came of it."""
        while True:
            try:
                reply = self._client.get_shell_msg(timeout=LONG)
            except Empty:
                pytest.fail("the cell does not end")
            if reply["parent_header"].get("msg_id") == cell:
                return reply["content"]

    def run(self, cell: str) -> None:
        """Run a cell that has to go well."""
        content = self.end(self.begin(cell))
        assert "ok" == content["status"], content

    def value(self, expression: str) -> object:
        """Evaluate an expression there."""
        cell = self._client.execute("", user_expressions={"value": f"__import__('json').dumps({expression})"})
        content = self.end(cell)
        answer = content["user_expressions"]["value"]
        assert "ok" == answer["status"], answer
        return json.loads(answer["data"]["text/plain"][1:-1])

    def recover(self) -> None:
        """After an error the kernel refuses what it believes to have been asked before."""
        while self.end(self.begin("pass"))["status"] == "aborted":
            pass

    def interrupt(self) -> None:
        """The stop button."""
        self._manager.interrupt_kernel()

    def close(self) -> None:
        """End it."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()


@pytest.fixture
def kernel(certificate, needs, tmp_path):
    """A kernel beside a simulated SES that takes its time."""
    needs("ipykernel")
    needs("jupyter_client")
    with SimulatedSES(rate=20_000, tls=certificate[0], latency=0.1) as ses:
        kernel = Kernel(environment(ses, certificate, IPYTHONDIR=str(tmp_path), JUPYTER_PLATFORM_DIRS="1"))
        try:
            # The kernel handles its signals itself, and has a stdout of its own.
            prelude = "\n".join(line for line in PRELUDE.splitlines() if "signal.signal" not in line)
            kernel.run(prelude + "\ndef say(*what):\n    print(*what, flush=True)\n")
            yield kernel, ses
        finally:
            kernel.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_notebooks_stop_button(kernel):
    """In sync and async cells: the batch is stopped, its partial report is at hand, and later cells work."""
    kernel, ses = kernel
    kernel.run(
        """
        def on_result(result):
            if result.index == 100:
                say("ready")

        sender, async_sender = new(), new(Sender)
        """
    )
    cells = {
        "sender": "sender.send_all(messages(100_000, 'sync'), on_result=on_result)",
        "async_sender": "await async_sender.send_all(messages(100_000, 'async'), on_result=on_result)",
    }
    for name, text in cells.items():
        cell = kernel.begin(text)
        kernel.see(cell, "ready")
        kernel.interrupt()
        ended = kernel.end(cell)
        assert (name, "error") == (name, ended["status"])
        kernel.recover()
        fates = kernel.value(f"counts({name}.last_report)")
        subject = "sync" if name == "sender" else "async"
        assert fates["sent"] + fates.get("unknown", 0) >= delivered(ses, subject) >= fates["sent"] >= 100
        assert sum(fates.values()) == kernel.value(f"{name}.last_report.total")
    assert {"sent": 50} == kernel.value("counts(sender.send_all(messages(50, 'later')))")
    kernel.run("report = await async_sender.send_all(messages(50, 'async later'))")
    assert {"sent": 50} == kernel.value("counts(report)")
    assert (50, 50) == (delivered(ses, "later"), delivered(ses, "async later"))

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request

import pytest

import tanksend
from tanksend.cli import _simulate, main


@contextlib.contextmanager
def ended():
    """What the command waits for has happened already."""
    over = threading.Event()
    over.set()
    yield over


def test_it_serves_until_it_is_interrupted():
    """As a process: the first line is the URL, and after Ctrl-C come the figures."""
    command = [sys.executable, "-m", "tanksend", "simulate", "--port", "0", "--rate", "5", "--faults", "500=0.01"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{url}/v2/email/account", timeout=60) as answer:  # noqa: S310  (our own)
            assert json.load(answer)["SendQuota"]["MaxSendRate"] == 5.0
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert f"AWS_ENDPOINT_URL_SESV2={url}" in rest
    assert json.loads(rest[rest.index("{") :])["by_action"] == {"ses:GetAccount": 1}
    assert process.returncode == 0


def test_options_become_settings(capsys, monkeypatch):
    """Each option reaches the simulator."""
    seen = []
    monkeypatch.setattr(_simulate, "_end_by_signal", ended)
    monkeypatch.setattr(_simulate, "_greeting", lambda ses: seen.append(ses) or "hello")
    options = (
        "--port 0 --rate -1 --mode debt --daily-quota 100 --sent-before 7 --sandbox --identity a.com --identity b.com "
        "--region eu-west-1 --deny ses:SendEmail --credential AK:SK --credential AS:SS:TOK --faults silent=0.5,500=0.1 "
        "--latency 0.04,0.02 --close-after 9 --idle-timeout 3 --keep-bodies"
    )
    assert main(["simulate", *options.split()]) == 0
    (ses,) = seen
    assert (ses.rate, ses.mode, ses.daily_quota, ses.sent_before) == (-1.0, "debt", 100.0, 7)
    assert (ses.sandbox, ses.identities, ses.region, ses.deny) == (
        True,
        {"a.com", "b.com"},
        "eu-west-1",
        {"ses:SendEmail"},
    )
    assert (ses.credentials["AK"].secret, ses.credentials["AS"].token) == ("SK", "TOK")
    assert (ses.latency, ses.close_after_requests, ses.idle_timeout) == ((0.04, 0.02), 9, 3.0)
    assert ses.verify_signatures
    assert ses.keep_bodies
    assert capsys.readouterr().out.startswith("hello\n{")


def test_the_defaults_and_the_greeting(capsys, monkeypatch):
    """Without options it says what it enforces."""
    monkeypatch.setattr(_simulate, "_end_by_signal", ended)
    assert main(["simulate", "--port", "0"]) == 0
    assert "14 recipients per second (strict), 50000 recipients per 24 hours" in capsys.readouterr().out
    assert main(["simulate", "--port", "0", "--rate", "-1", "--daily-quota", "-1"]) == 0
    assert "unlimited, unlimited" in capsys.readouterr().out
    assert main(["simulate", "--port", "0", "--smtp-port", "0"]) == 0
    assert "SMTP is spoken at port " in capsys.readouterr().out


@pytest.mark.parametrize("options", ["--faults nonsense=1", "--tls no.pem no.key", "--latency x", "--mode none"])
def test_options_that_make_no_sense(options, capsys):
    """They end with a usage error and a sentence."""
    with pytest.raises(SystemExit) as caught:
        main(["simulate", "--port", "0", *options.split()])
    assert caught.value.code == 2
    assert "tanksend simulate: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("--port -1", "--port: must be a whole number from 0 to 65535"),
        ("--port 65536", "--port: must be a whole number from 0 to 65535"),
        ("--smtp-port smtp", "--smtp-port: must be a whole number from 0 to 65535"),
        ("--rate nan", "--rate: must be a number from 0 on, or -1"),
        ("--daily-quota -9", "--daily-quota: must be a number from 0 on, or -1"),
        ("--rate fast", "--rate: must be a number from 0 on, or -1"),
        ("--faults 500", "--faults: must be NAME=CHANCE"),
        ("--latency 0.1,x", "--latency: must be seconds"),
        ("--credential justakey", "--credential: must be KEY:SECRET"),
    ],
)
def test_a_value_that_cannot_be_used(options, wanted, capsys):
    """The error names the option and says what it takes; it does not repeat what may be a secret."""
    with pytest.raises(SystemExit) as caught:
        main(["simulate", *options.split()])
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert wanted in told
    assert "justakey" not in told


def test_signals_end_it_and_are_given_back():
    """The handlers of before are there again afterwards."""
    before = signal.getsignal(signal.SIGTERM)
    with _simulate._end_by_signal() as over:
        assert not over.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert over.wait(10)
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_command_without_a_sub_command(capsys):
    """Usage on standard error, or on standard output when it was asked for."""
    assert main([]) == 2
    assert "simulate" in capsys.readouterr().err
    assert main(["nonsense"]) == 2
    assert "there is no command 'nonsense'" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "commands:" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tanksend {tanksend.__version__}\n"


def test_arguments_of_the_process(monkeypatch, capsys):
    """They are taken when none are given."""
    monkeypatch.setattr(sys, "argv", ["tanksend", "--version"])
    assert main() == 0
    assert "tanksend" in capsys.readouterr().out

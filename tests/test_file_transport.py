from __future__ import annotations

import contextlib
import email
import email.policy
import errno
import itertools
import os
import stat
import subprocess
import sys
from email.header import decode_header, make_header
from pathlib import Path

import anyio
import pytest

from tanksend import Sender, Status
from tanksend._addresses import Address
from tanksend._messages import Attachment, Message, Template
from tanksend.exceptions import ConfigurationError, InvalidMessageError, Scope
from tanksend.testing import check_transport
from tanksend.transports import FileTransport
from tanksend.typing import SendRequest

pytestmark = pytest.mark.anyio

SENDER = Address("Tank", "no-reply@example.com")


def request_for(number: int = 0, **fields) -> SendRequest:
    """One message, as the engine hands it over."""
    message = Message(f"kim{number}@example.com", f"Hi {number}", text="Hello", **fields)
    return SendRequest(
        message,
        SENDER,
        message.to,
        message.cc,
        message.bcc,
        message.reply_to,
        message.configuration_set,
        message.tags,
    )


def read(folder: Path, name: str) -> email.message.EmailMessage:
    """A file, by a parser that nobody here wrote."""
    return email.message_from_bytes((folder / f"{name}.eml").read_bytes(), policy=email.policy.default)


def names(folder: Path) -> list[str]:
    """All that is in it."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    """Where to; not there yet."""
    return tmp_path / "a" / "mail"


async def test_a_message_is_a_file(folder):
    """Which a mail program can open, under the name that the receipt says."""
    transport = FileTransport(folder)
    receipt = await transport.send(request_for(html="<p>안녕</p>", attachments=[Attachment("a.bin", b"\0\xff")]))
    await transport.aclose()
    mail = read(folder, receipt.message_id)
    assert ("Tank <no-reply@example.com>", "kim0@example.com", "Hi 0") == (mail["From"], mail["To"], mail["Subject"])
    assert "<p>안녕</p>" == mail.get_body(("html",)).get_content().strip()
    assert [b"\0\xff"] == [part.get_content() for part in mail.iter_attachments()]
    assert mail["Date"].datetime.year > 2000
    assert [f"{receipt.message_id}.eml"] == names(folder)
    assert "<FileTransport mail>" == repr(transport)


async def test_nothing_of_the_request_is_lost(folder):
    """What is no part of the mail stands in headers before it."""
    key = "order \n\0 7 é " + "x" * 2_000
    request = request_for(
        bcc=["김철수 <b@example.com>", "c@example.com"],
        cc="d@example.com",
        reply_to="e@example.com",
        tags={"campaign": "news", "number": "1"},
        configuration_set="main",
        key=key,
    )
    receipt = await FileTransport(folder).send(request)
    mail = read(folder, receipt.message_id)
    assert receipt.message_id == mail["X-Tanksend-Message-ID"]
    bcc = [str(make_header(decode_header(value))) for value in mail.get_all("X-Tanksend-Bcc")]
    assert ["김철수 <b@example.com>", "c@example.com"] == bcc
    assert ["campaign=news", "number=1"] == mail.get_all("X-Tanksend-Tag")
    assert "main" == mail["X-Tanksend-Configuration-Set"]
    raw = email.message_from_bytes((folder / f"{receipt.message_id}.eml").read_bytes())
    assert key == str(make_header(decode_header(raw["X-Tanksend-Key"])))
    assert ("d@example.com", "e@example.com", None) == (mail["Cc"], mail["Reply-To"], mail["Bcc"])
    assert max(map(len, (folder / f"{receipt.message_id}.eml").read_bytes().split(b"\r\n"))) < 998


async def test_a_plain_key_is_readable(folder):
    """Half of a surrogate pair is written as a question mark."""
    for key, written in (("order-7", "order-7"), ("a\ud83d", "a?")):
        receipt = await FileTransport(folder).send(request_for(key=key))
        assert written == read(folder, receipt.message_id)["X-Tanksend-Key"]


@pytest.mark.parametrize("key", [" order", "order ", "=?UTF-8?B?eA==?=", "a  b", " "])
async def test_a_key_is_read_as_it_was(folder, key):
    """Also where a plain header would lose a blank or be decoded."""
    receipt = await FileTransport(folder).send(request_for(key=key))
    assert key == read(folder, receipt.message_id)["X-Tanksend-Key"]


async def test_files_are_for_this_user_alone(folder):
    """And so is the folder, if it was made here."""
    receipt = await FileTransport(folder).send(request_for())
    if os.name == "posix":
        assert 0o600 == stat.S_IMODE((folder / f"{receipt.message_id}.eml").stat().st_mode)
        assert 0o700 == stat.S_IMODE(folder.stat().st_mode)


async def test_names_sort_by_time_also_when_the_clock_goes_back(folder, monkeypatch):
    """In one process each is later than the one before."""
    times = itertools.chain([5_000_000_000, 4_000_000_000], itertools.repeat(5_000_000_000))
    monkeypatch.setattr("time.time_ns", lambda: next(times))
    transport = FileTransport(folder)
    given = [(await transport.send(request_for(number))).message_id for number in range(5)]
    assert sorted(given) == given
    assert "19700101T000005.000000000Z-" == given[0][:-16]


def test_many_processes_write_into_one_folder(folder):
    """No name is taken twice."""
    script = f"""
import anyio
from tanksend import Message
from tanksend._addresses import Address
from tanksend.transports import FileTransport
from tanksend.typing import SendRequest

async def main():
    transport = FileTransport({str(folder)!r})
    message = Message("kim@example.com", "Hi", "Hello")
    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(transport.send, SendRequest(message, Address.parse("a@example.com"), message.to))

anyio.run(main)
"""
    running = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(3)]
    assert [0, 0, 0] == [process.wait(60) for process in running]
    assert 150 == len(list(folder.glob("*.eml"))) == len(names(folder))


async def test_a_file_is_on_the_disk_when_it_counts(folder, monkeypatch):
    """Its content first, then its name."""
    synced = []
    original = os.fsync

    def fsync(descriptor):
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        original(descriptor)

    monkeypatch.setattr("os.fsync", fsync)
    await FileTransport(folder).send(request_for())
    assert [] == synced
    await FileTransport(folder, fsync=True).send(request_for())
    assert [False, True] == synced


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be synced there")
@pytest.mark.parametrize(("number", "written"), [(errno.EINVAL, 1), (errno.EIO, 0)])
async def test_a_name_that_cannot_be_had_on_the_disk(folder, monkeypatch, number, written):
    """Some shared folders cannot be synced at all. Where it fails there is no file: it would be written once more."""
    original = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, "no")
        original(descriptor)

    monkeypatch.setattr("os.fsync", fsync)
    transport = FileTransport(folder, fsync=True)
    with contextlib.nullcontext() if written else pytest.raises(ConfigurationError):
        await transport.send(request_for())
    assert written == len(names(folder))


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "disk is full.*Make room"),
        (errno.EROFS, "may not be written to.*Let this user write"),
        (errno.EACCES, "may not be written to"),
        (errno.EIO, "cannot be written to.*Look at the disk"),
        (None, "cannot be written to"),
    ],
)
async def test_a_folder_that_cannot_be_written_to(folder, monkeypatch, number, sentence):
    """The error says what to do, is about every message, and leaves no half of a file."""
    transport = FileTransport(folder)
    await transport.send(request_for())
    with monkeypatch.context() as patch:

        def rename(*_):
            raise OSError(number, "kim@example.com") if number else OSError("kim@example.com")

        patch.setattr("pathlib.Path.rename", rename)
        with pytest.raises(ConfigurationError, match=sentence) as caught:
            await transport.send(request_for())
    assert (Scope.ACCOUNT, False, False) == (caught.value.scope, caught.value.maybe_sent, caught.value.retryable)
    assert "kim" not in str(caught.value)
    assert 1 == len(names(folder))
    await transport.send(request_for())
    assert 2 == len(names(folder))


async def test_a_folder_that_is_a_file(tmp_path):
    """As a real system says it."""
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(ConfigurationError, match="is not there and cannot be made"):
            await FileTransport(place).send(request_for())


async def test_a_template_cannot_be_written(folder):
    """SES alone makes its content; there is no file then."""
    message = Message.from_template(Template(name="hi"), to="kim@example.com", data={})
    with pytest.raises(InvalidMessageError, match="template"):
        await FileTransport(folder).send(SendRequest(message, SENDER, message.to))
    assert not folder.exists()


async def test_a_sender_is_not_paced_by_it(folder):
    """It delivers nothing."""
    async with Sender(from_="Tank <no-reply@example.com>", transport=FileTransport(folder)) as sender:
        report = await sender.send_all([Message(f"kim{each}@example.com", "Hi", "Hello") for each in range(300)])
    assert {Status.SENT: 300} == {status: number for status, number in report.counts.items() if number}
    assert 300 == len(names(folder))


async def test_it_keeps_the_contract_of_a_transport(folder, tmp_path):
    """The conformance kit."""
    (tmp_path / "file").touch()
    await check_transport(lambda: FileTransport(folder), broken=lambda: FileTransport(tmp_path / "file"))
    assert all(name.endswith(".eml") for name in names(folder))


def test_two_loops_may_share_it(folder):
    """Each gets its own answers."""
    transport = FileTransport(folder)
    for backend in ("asyncio", "trio", "asyncio"):
        assert anyio.run(transport.send, request_for(), backend=backend).message_id

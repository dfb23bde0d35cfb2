from __future__ import annotations

import threading

import anyio
import pytest

from tanksend.suppression import MemorySuppressionStore
from tanksend.testing import FakeClock, check_suppression_store
from tanksend.typing import Suppression, SuppressionReason

pytestmark = pytest.mark.anyio


async def everybody(store):
    """The addresses of all entries."""
    return sorted([entry.address async for entry in store.entries()])


async def test_it_keeps_its_contract():
    """The check that ships for everybody's stores."""
    await check_suppression_store(MemorySuppressionStore)


async def test_it_begins_with_what_it_is_given():
    """Entries, and plain addresses for those who only have a list."""
    store = MemorySuppressionStore(["a@example.com", Suppression("b@example.com", SuppressionReason.BOUNCE)])
    found = await store.lookup(["a@example.com", "b@example.com", "c@example.com"])
    assert {address: entry.reason for address, entry in found.items()} == {
        "a@example.com": SuppressionReason.MANUAL,
        "b@example.com": SuppressionReason.BOUNCE,
    }
    assert repr(store) == "<MemorySuppressionStore 2 entries>"


@pytest.mark.parametrize(
    "written",
    [
        "Kim.Lee@Example.COM",
        " kim.lee@example.com\n",
        "Kim <kim.lee@example.com>",
        "김 <KIM.LEE@example.com>",
    ],
)
async def test_a_person_is_known_in_every_spelling(written):
    """However somebody's list writes an address, it is the one that goes on the wire."""
    store = MemorySuppressionStore([written])
    asked = ["kim.lee@example.com", "KIM.LEE@EXAMPLE.COM"]
    assert set(await store.lookup(asked)) == set(asked)
    assert await store.remove(written)
    assert await store.lookup(asked) == {}


@pytest.mark.parametrize("written", ["kim@bücher.example", "Kim@BÜCHER.example", "Kim <kim@xn--bcher-kva.example>"])
async def test_domains_are_known_in_letters_and_in_punycode(written):
    """The sender asks for Punycode; a list that people keep has letters."""
    store = MemorySuppressionStore([written])
    assert set(await store.lookup(["kim@xn--bcher-kva.example"])) == {"kim@xn--bcher-kva.example"}
    assert set(await store.lookup(["kim@bücher.example"])) == {"kim@bücher.example"}


async def test_what_is_no_address_is_kept_and_suppresses_nobody():
    """A bad cell in a list is no reason to stop."""
    store = MemorySuppressionStore(["nobödy", "", "a@b, c@d"])
    assert await store.lookup(["kim@example.com"]) == {}
    assert set(await store.lookup(["NOBÖDY"])) == {"NOBÖDY"}
    assert len(await everybody(store)) == 3


async def test_entries_expire_by_the_wall_clock():
    """To the second: it holds until its moment, and not at it."""
    clock = FakeClock(wall=1_000.0)
    store = MemorySuppressionStore([Suppression("a@example.com", expires_at=1_010.0)], clock=clock)
    assert (await store.explain("a@example.com")).expires_at == 1_010.0
    clock.advance(9.5)
    assert await everybody(store) == ["a@example.com"]
    clock.advance(0.5)
    assert await store.lookup(["a@example.com"]) == {}
    assert await everybody(store) == []
    assert await store.explain("a@example.com") is None


async def test_removing_what_has_expired_removes_nothing():
    """There was no suppression to lift."""
    clock = FakeClock(wall=1_000.0)
    store = MemorySuppressionStore([Suppression("a@example.com", expires_at=999.0), "b@example.com"], clock=clock)
    assert await store.remove("a@example.com") is False
    assert await store.remove("B@example.com") is True
    assert await store.remove("b@example.com") is False


async def test_the_reason_can_be_asked_for():
    """Suppression is reversible, with its reason."""
    store = MemorySuppressionStore()
    assert await store.explain("a@example.com") is None
    entry = Suppression("A@example.com", "complaint", at=5.0, evidence="event-1")
    await store.add(entry)
    assert await store.explain("a@EXAMPLE.com") is entry
    again = Suppression("a@example.com", "unsubscribe")
    await store.add(again)
    assert await store.explain("a@example.com") is again
    assert await everybody(store) == ["a@example.com"]


async def test_entries_can_be_changed_while_they_are_read():
    """The list is that of the moment at which reading began."""
    store = MemorySuppressionStore(["a@example.com", "b@example.com"])
    seen = []
    async for entry in store.entries():
        seen.append(entry.address)
        await store.add(Suppression(f"new{len(seen)}@example.com"))
        await store.remove("b@example.com")
    assert seen == ["a@example.com", "b@example.com"]
    assert await everybody(store) == ["a@example.com", "new1@example.com", "new2@example.com"]


async def test_threads_may_share_it():
    """Each with an event loop of its own."""
    store = MemorySuppressionStore()

    async def fill(number):
        for count in range(200):
            address = f"p{number}.{count}@example.com"
            await store.add(Suppression(address))
            assert await store.lookup([address])
            await store.remove(f"p{number}.{count - 1}@example.com")

    threads = [threading.Thread(target=anyio.run, args=(fill, number)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert await everybody(store) == [f"p{number}.199@example.com" for number in range(4)]


async def test_nothing_personal_in_reprs():
    """Not of an entry, and not of the store."""
    entry = Suppression("secret@example.com", SuppressionReason.COMPLAINT, evidence="secret")
    assert repr(entry) == "<Suppression complaint>"
    assert "secret" not in repr(MemorySuppressionStore([entry]))


async def test_what_is_no_suppression_is_refused_by_its_type():
    """One text would be taken letter by letter, and nobody would be suppressed."""
    with pytest.raises(TypeError, match="not one str"):
        MemorySuppressionStore("a@example.com")
    for entries in ([None], [b"a@example.com"]):
        with pytest.raises(TypeError, match=r"Suppression\(address\)"):
            MemorySuppressionStore(entries)
    with pytest.raises(TypeError, match="not str"):
        await MemorySuppressionStore().add("a@example.com")

"""The script of `RedisLimiter` beside the arithmetic that it repeats."""

# ruff: noqa: F811  (fixtures are imported, and asked for by their names)

from __future__ import annotations

import math
import random
import uuid
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from redis_server import Client, client, redis_server, server  # noqa: F401
from tanksend._quota import DailyWindow, RateControl
from tanksend.limiters._redis_link import Answer, RedisLink
from tanksend.testing import FakeClock


class SharedControl(RateControl):
    """As several processes need it: who asks is not who has just used the last slot, and asks ahead."""

    def _look_back(self, now: float, span: float) -> None:
        begin = max(now, self.sent[-1][0]) if self.sent else now
        while self.sent and self.sent[0][0] + span <= begin:
            self.load -= self.sent.pop(0)[1]


class Twins:
    """The script and the arithmetic, given the same inputs at the same moments."""

    def __init__(self, client: Client, rate: float, headroom: float) -> None:
        self.clock = FakeClock(autojump=False)
        self.redis = client.redis
        self.link = RedisLink(client, uuid.uuid4().hex, clock=self.clock, server_time=False)
        self.rate, self.headroom = rate, headroom
        self.control, self.day = SharedControl(), DailyWindow()
        self.grants: list[tuple[int, int, float]] = []
        self.control.serial = int(self.look().serial)
        self.control.paid = self.now + 1.0  # what the state was before is not known

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    def call(self, operation: str, *arguments: object, outcomes: tuple[int, ...] = (0, 0, 0, 0)) -> Answer:
        common = (0, self.rate, 0, "", self.headroom)
        return self.link.run(lambda now: (operation, now, *common, *outcomes, *arguments))

    def look(self, *outcomes: int) -> Answer:
        """Tell the script no more than that."""
        return self.call("release", 0, 0, 0, 0, "", outcomes=outcomes or (0, 0, 0, 0))

    def reserve(self, recipients: int, at_least: int, uncounted: int, kept: int, kind: str) -> None:
        at_least, uncounted = min(at_least, recipients), min(uncounted, recipients)
        answer = self.call("reserve", recipients, at_least, uncounted, "transactional", kept, 0.02, "", "new", kind)
        counted = recipients - uncounted
        room = self.day.room_at(self.now, counted, kept) if counted else self.now
        if room > self.now:
            assert (answer.kind, answer.number(0)) == ("spent", pytest.approx(room))
            return
        divisible = kind == "divisible"
        grant = self.control.grant(self.now, recipients, at_least, self.rate, self.headroom, divisible=divisible)
        counted = min(counted, grant.recipients)
        bucket = self.day.take(self.now, grant.due, counted) if counted else 0
        self.grants.append((self.control.serial, counted, bucket))
        expected = [grant.due, grant.recipients, self.control.price, bucket, counted]
        assert answer.kind == "slot"
        assert [answer.number(index) for index in range(5)] == pytest.approx(expected, abs=1e-7)

    def release(self, number: int, recipients: int) -> None:
        if not self.grants:
            return
        serial, counted, bucket = self.grants[number % len(self.grants)]
        counted = min(counted, recipients)
        self.call("release", serial, recipients, bucket, counted, "")
        self.control.give_back(serial, recipients)
        if counted:
            self.day.give_back(bucket, counted)

    def throttled(self, recipients: int) -> None:
        self.call("refuse", "rate", recipients, 5)
        self.control.throttled(self.now, recipients, self.rate, self.headroom)

    def pause(self, seconds: int) -> None:
        self.call("refuse", "pause", 1, seconds)
        self.control.pause(self.now + seconds)

    def quota(self, recipients: int) -> None:
        self.call("refuse", "quota", recipients, 900)
        self.day.refused(self.now, recipients, self.now + 900)

    def learn(self, quota: int, spent: int) -> None:
        settled = self.day.settled(self.now)
        self.call("learn", 900, 50, quota, spent, settled, "")
        self.day.read(self.now, quota, spent, settled)

    def answered(self, took: int, counting: int, missed: int) -> None:
        self.look(took, counting, missed, 0)
        if took:
            self.control.accepted(self.now, took)
        if counting:
            self.day.answered(counting, counted=True)
        if missed:
            self.day.answered(missed, counted=False)

    def compare(self) -> None:
        state = {name.decode(): value.decode() for name, value in self.redis.hgetall(self.link._keys[0]).items()}
        self.day.spent(self.now)
        known = attrs.asdict(self.control) | attrs.asdict(self.day)
        for name in known.keys() - {"sent", "ours", "others"}:
            assert float(state[name]) == pytest.approx(known[name], abs=1e-6), name


CALLS = st.one_of(
    st.tuples(
        st.just("reserve"),
        st.integers(1, 40),
        st.integers(1, 40),
        st.integers(0, 3),
        st.sampled_from([0, 5]),
        st.sampled_from(["", "divisible"]),
    ),
    st.tuples(st.just("release"), st.integers(0, 50), st.integers(1, 40)),
    st.tuples(st.just("throttled"), st.integers(1, 20)),
    st.tuples(st.just("pause"), st.integers(1, 5)),
    st.tuples(st.just("quota"), st.integers(1, 20)),
    st.tuples(st.just("learn"), st.integers(1, 400), st.integers(0, 400)),
    st.tuples(st.just("answered"), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)),
)
STEPS = st.lists(st.tuples(st.sampled_from([0.0, 0.004, 0.02, 0.3, 1.1, 40.0, 20_000.0]), CALLS), max_size=40)


# A call of the server for each step: to make a failing example smaller would take minutes.
@settings(
    max_examples=settings().max_examples * 3 // 5,
    phases=[Phase.generate],
    suppress_health_check=[*settings().suppress_health_check, HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS, rate=st.sampled_from([7.0, 50.0]), headroom=st.sampled_from([1.0, 0.99]))
def test_the_script_reckons_as_the_arithmetic_does(
    client: Client,
    steps: list[Any],
    rate: float,
    headroom: float,
) -> None:
    """Driven with the same inputs, both grant the same, and know the same afterwards."""
    twins = Twins(client, rate, headroom)
    for seconds, (kind, *details) in steps:
        twins.clock.advance(seconds)
        getattr(twins, kind)(*details)
        twins.compare()


@pytest.mark.parametrize("rate", [5.0, 50.0, math.inf])
@pytest.mark.parametrize("seed", range(4))
def test_the_script_shares_an_account_as_the_arithmetic_does(client: Client, rate: float, seed: int) -> None:
    """A long time with throttles of every kind: cuts, quick ones, and the way back."""
    chance = random.Random(seed)
    twins = Twins(client, rate, 0.99)
    for _ in range(400):
        twins.clock.advance(chance.choice([0.01, 0.05, 0.3, 1.0, 1.1, 2.0, 5.0]) * chance.random() * 1.5)
        if chance.random() < 0.5:
            twins.throttled(1)
        else:
            twins.answered(chance.randrange(1, 30), 0, 0)
        twins.compare()
        pace = twins.control.pace(twins.now, rate, 0.99)
        assert twins.look().pace == pytest.approx(pace)

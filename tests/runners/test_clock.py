"""The time of an image: of all its tasks together, without lost workers and sleeping machines."""

from __future__ import annotations

import math

import pytest

from deqcert.runners.clock import LONGEST_LOOK, Clock


class Hands:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float, clock: Clock) -> None:
        """Let time pass, looked at twice a second."""
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            clock.left()


def test_tasks_add_up_and_lost_ones_count_for_nothing():
    hands = Hands()
    clock = Clock(10.0, now=hands)
    one, two = clock.start(), clock.start()
    hands.pass_by(2, clock)
    assert (clock.spent(), clock.left()) == (4.0, 6.0)
    clock.stop(one, counts=True)
    clock.stop(two, counts=False)
    assert clock.spent() == 2.0
    hands.pass_by(100, clock)  # nobody works on it
    assert clock.left() == 8.0
    clock.start()
    hands.pass_by(9, clock)
    assert clock.left() == -1.0


def test_a_machine_asleep_is_no_slow_image():
    hands = Hands()
    clock = Clock(10.0, now=hands)
    task = clock.start()
    hands.now += 3600.0
    assert clock.left() == 10.0 - LONGEST_LOOK
    clock.stop(task, counts=True)
    assert clock.spent() == LONGEST_LOOK


def test_without_a_limit_time_is_still_told():
    hands = Hands()
    clock = Clock(None, now=hands)
    task = clock.start()
    hands.pass_by(30, clock)
    assert math.isinf(clock.left())
    clock.stop(task, counts=True)
    assert clock.spent() == pytest.approx(30.0)

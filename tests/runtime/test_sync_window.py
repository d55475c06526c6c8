"""How much is sent at once, and how long is waited, by arithmetic on links that are a delay and a rate."""

from __future__ import annotations

import random

import pytest

from tagclip.runtime.sync_window import LEAST_BYTES, MOST_IN_FLIGHT_S, Window


@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.6])
@pytest.mark.parametrize("rate", [8_000.0, 32_000.0, 250_000.0, 2_500_000.0])
def test_the_window_follows_the_bandwidth_and_not_the_delay(rate: float, delay_s: float) -> None:
    """Answer time = delay + size / rate, with every size up to the window, as messages come."""
    rng = random.Random(6)
    window, sent, spent_s = Window(1 << 20), 0.0, 0.0
    for number in range(120):
        size = int(window.bytes * rng.uniform(0.8, 1.0)) if number % 20 else 500
        time_s = delay_s * rng.uniform(1.0, 1.2) + size / rate * rng.uniform(1.0, 1.2)
        assert number == 0 or window.timeout_s(size) >= max(10.0, 2 * time_s)
        window.answered(size, time_s)
        if number >= 20:
            assert window.bytes <= 1.1 * MOST_IN_FLIGHT_S * rate
            sent, spent_s = sent + size, spent_s + time_s
    whole = 1 << 20
    assert sent / spent_s > 0.5 * min(rate, whole / (delay_s + whole / rate))


def test_time_outs_get_longer_and_batches_smaller_while_nothing_comes() -> None:
    window = Window(1 << 20)
    assert window.timeout_s(16 << 10) == 10.0
    before, waits = window.bytes, []
    for _ in range(8):
        waits.append(window.timeout_s(1000))
        window.failed(timed_out=True)
    assert (
        waits == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0] and window.bytes == LEAST_BYTES < before
    )
    window.answered(1000, 4.0)
    assert window.timeout_s(1000) == 16.0


def test_a_link_that_gets_slow_is_sent_less_at_once() -> None:
    window = Window(1 << 20)
    for _ in range(20):
        window.answered(window.bytes, 0.05 + window.bytes / 1e6)
    assert window.bytes > 150_000
    window.answered(window.bytes, 0.05 + window.bytes / 8e3)
    assert window.bytes <= MOST_IN_FLIGHT_S * 8_100

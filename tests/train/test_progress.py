"""The time left counts what this run did, not what an earlier one had done."""

from __future__ import annotations

import time

import pytest

from tagclip.train.progress import bar


@pytest.mark.parametrize(("first", "left_s"), [(0, 100), (80, 500)])
def test_time_left_of_a_run_that_goes_on(
    first: int, left_s: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """100 of 200 are done after 100 s; of a run that began with 80 that is 20, five seconds each."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with bar() as tick:
        tick("people", first, 200, "")
        now[0] = 100.0
        tick("people", 100, 200, "")
    assert capsys.readouterr().err == f"people: 100/200, {left_s} s left \n"

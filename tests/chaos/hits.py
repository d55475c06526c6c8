"""Hits and pictures by number: the same wherever they are made, so that both ends can tell what was lost or changed."""

from __future__ import annotations

import random
import uuid

from tagclip.runtime.hit import Hit

ENCODER = "e" * 64


def hit(number: int, revision: int = 1) -> Hit:
    """The hit of a number; its number is its `frame` and its id."""
    at_s = 1_700_000_000.0 + number % 1_000_000
    p_value = (number * 7919 % 1000 + 1) / 1e6
    return Hit(
        *(uuid.UUID(int=number), revision, "q1", "a man", uuid.UUID(int=number), "cam", "aerial", ENCODER),
        *(0.3, p_value, None, 0.2, at_s, at_s + 4, at_s + 2, number, (1.0, 2.0, 30.0, 60.0), (640, 480)),
    )


def jpeg(number: int) -> bytes:
    """The picture of a number: 3,000 bytes."""
    return b"\xff\xd8\xff\xe0" + random.Random(number).randbytes(2996)

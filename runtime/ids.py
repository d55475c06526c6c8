"""Identifiers that are made where things happen: UUID version 7, so that later ones sort after earlier ones."""

from __future__ import annotations

import os
import time
import uuid


def uuid7(time_ms: int | None = None) -> uuid.UUID:
    """A new UUIDv7 (RFC 9562, 5.7): 48 bits of Unix time in milliseconds, 74 random bits.

    Never a counter: one that goes back after a power cut would give an old id to a new thing.

    Args:
        time_ms: Unix time, UTC; default now. Outside of 0 to 2^48 - 1 it is brought to the nearer end.
    """
    now_ms = time.time_ns() // 1_000_000 if time_ms is None else time_ms
    stamp = min(max(now_ms, 0), (1 << 48) - 1)
    value = stamp << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    return uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62)  # variant

"""warp's greeting, kept off stdout."""

from __future__ import annotations


def quiet_warp() -> None:
    """Call before anything initialises warp (anny's import does); else it prints its devices in every process."""
    import warp as wp

    wp.config.log_level = wp.LOG_ERROR

"""The bench of looking back: it really searches beside the frames, and a search that is slow shows."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

from tagclip.runtime.retro_bench import measure


def test_frames_are_timed_with_and_without_a_search(tmp_path: Path) -> None:
    folder = tmp_path / "bench"
    told: list[tuple[str, int, int]] = []
    found = measure(folder, 300, 2, 1, 5, 1, lambda *each: told.append(each))
    assert not folder.exists()
    assert told == [("tracks", 300, 300), ("rounds", 1, 1)]
    assert found["quiet"]["frames"] == 5 and found["searching"]["frames"] >= 1
    assert found["hits"][0] > 0 and found["search_s"][0] > 0
    for part in ("quiet", "searching"):
        times = list(found[part]["ms"].values())
        assert times == sorted(times) and times[0] > 0

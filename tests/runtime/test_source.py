"""Videos and folders: what is read, what is refused, and what is said about what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tagclip.runtime.errors import SourceError
from tagclip.runtime.source import FolderSource, VideoSource, open_source, read_image


def write_video(path: Path, frames: int, *, fps: float = 10.0, fourcc: str = "MJPG") -> Path:
    """Frame i is (8 i, 0, 255 - 8 i) in RGB, 64x48."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*fourcc), fps, (64, 48))
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.full((48, 64, 3), (255 - 8 * index, 0, 8 * index), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(("name", "fourcc"), [("clip.avi", "MJPG"), ("clip.mp4", "mp4v")])
def test_video_frames_are_rgb_in_order_with_times(tmp_path: Path, name: str, fourcc: str) -> None:
    source = open_source(write_video(tmp_path / name, 30, fps=20.0, fourcc=fourcc))
    assert isinstance(source, VideoSource)
    assert (source.width_px, source.height_px, source.frame_count) == (64, 48, 30)
    for _ in range(2):  # a second iteration starts over
        seen = [(frame.index, frame.time_s, *frame.image[24, 32].tolist()) for frame in source]
        assert [row[0] for row in seen] == list(range(30))
        np.testing.assert_allclose([row[1] for row in seen], np.arange(30) / 20.0, atol=0.005)
        np.testing.assert_allclose([row[2] for row in seen], 8 * np.arange(30), atol=8)  # red grows
        np.testing.assert_allclose([row[4] for row in seen], 255 - 8 * np.arange(30), atol=8)
    assert source.warnings == []


def test_sample_is_spread_over_the_video_and_owns_its_pixels(tmp_path: Path) -> None:
    source = VideoSource(write_video(tmp_path / "clip.avi", 30))
    reds = [int(image[24, 32, 0]) for image in source.sample(5)]
    np.testing.assert_allclose(reds, [8 * index for index in (3, 9, 15, 21, 27)], atol=8)
    assert len(source.sample(100)) == 30


def test_broken_timestamps_fall_back_to_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        """A capture whose container has no timestamps."""

        def __init__(self, inner: cv2.VideoCapture) -> None:
            self.inner = inner

        def get(self, prop: int) -> float:
            return 0.0 if prop == cv2.CAP_PROP_POS_MSEC else self.inner.get(prop)

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

    source = VideoSource(write_video(tmp_path / "clip.avi", 10))
    inner = source._open
    monkeypatch.setattr(source, "_open", lambda: Stuck(inner()))
    np.testing.assert_allclose([frame.time_s for frame in source], np.arange(10) / 10.0, atol=1e-6)


def test_truncated_video_is_read_as_far_as_it_goes_and_said(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 30)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    source = VideoSource(path)
    read = sum(1 for _ in source)
    assert 0 < read < 27
    (warning,) = source.warnings
    assert "30 frames" in warning and f"only {read}" in warning
    list(source)
    assert len(source.warnings) == 1  # said once


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.mp4", None, "no such file"),
        ("empty.mp4", b"", "empty"),
        ("notes.mp4", b"this is not a video\n" * 500, "not a video"),
        ("notes.txt", b"hello\n" * 500, "not a video"),
        ("noise.avi", bytes(range(256)) * 64, "not a video"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=says):
        open_source(path)


def test_mp4_cut_off_before_its_index_and_video_without_frames_are_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", 30, fourcc="mp4v")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SourceError, match="cut off before its index"):
        open_source(path)
    with pytest.raises(SourceError):
        open_source(write_video(tmp_path / "none.avi", 0))


def test_broken_files_leave_stderr_empty(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "clip.mp4", 30, fourcc="mp4v")
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:1500])
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 64)
    code = (
        "from pathlib import Path\n"
        "from tagclip.runtime.errors import SourceError\n"
        "from tagclip.runtime.source import open_source\n"
        "for name in ('cut.mp4', 'bad.png'):\n"
        "    try:\n"
        "        list(open_source(Path(name)))\n"
        "    except SourceError:\n"
        "        print('refused')\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused", "refused"]
    assert done.stderr == ""


def test_folder_is_sorted_recursive_and_ignores_what_is_hidden_or_no_image(tmp_path: Path) -> None:
    image = np.zeros((8, 4, 3), np.uint8)
    image[..., 0] = 200  # blue in OpenCV's order
    for name in ("b.PNG", "sub/a.jpg", "a.bmp", "c.webp", ".hidden.png", ".cache/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name).replace(".PNG", ".png"), image)
    (tmp_path / "b.png").rename(tmp_path / "b.PNG")
    (tmp_path / "notes.txt").write_text("no image")
    source = open_source(tmp_path)
    assert isinstance(source, FolderSource)
    found = list(source)
    assert [str(path.relative_to(tmp_path)) for path, _ in found] == ["a.bmp", "b.PNG", "c.webp", "sub/a.jpg"]
    for _, pixels in found:
        assert pixels.shape == (8, 4, 3) and pixels.dtype == np.uint8
        np.testing.assert_allclose(pixels[4, 2], (0, 0, 200), atol=6)  # RGB


def test_unreadable_images_are_skipped_and_counted(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "good.png"), np.zeros((8, 4, 3), np.uint8))
    (tmp_path / "bad.jpg").write_bytes(b"not a picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    source = open_source(tmp_path)
    assert isinstance(source, FolderSource)
    assert [path.name for path, _ in source] == ["good.png"]
    assert [path.name for path in source.skipped] == ["bad.jpg", "empty.jpg"]


def test_folder_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no image"):
        open_source(tmp_path)
    (tmp_path / "bad.jpg").write_bytes(b"not a picture")
    with pytest.raises(SourceError, match="none of the 1 images"):
        list(open_source(tmp_path))
    assert read_image(tmp_path / "bad.jpg") is None


def test_a_single_image_is_a_folder_of_one(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((8, 4, 3), np.uint8))
    source = open_source(tmp_path / "one.png")
    assert isinstance(source, FolderSource) and len(list(source)) == 1

"""The user's own map: an MBTiles file (https://github.com/mapbox/mbtiles-spec 1.3) of raster tiles, only read."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from urllib.parse import quote

from tagclip.runtime.errors import ConfigError

MAX_ZOOM = 22
MAX_TILE_BYTES = 4 << 20
# How a tile begins, and what it is then: a file says of itself what it likes.
KINDS = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"RIFF", "image/webp"))
FORMATS = ("png", "jpg", "jpeg", "webp")


class Tiles:
    """An MBTiles file; any thread may ask.

    Args:
        path: the file. Nothing is ever written to it.

    Attributes:
        min_zoom, max_zoom: of the tiles that are there.
        bounds: west, south, east, north, degrees; None where the file has no tile.
        credit: whom the map is of, "" when the file does not say.

    Raises:
        ConfigError: it is no MBTiles file with raster tiles, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        if not path.is_file():
            raise ConfigError(f"{path} is not there; --mbtiles expects a file")
        try:
            self._file = sqlite3.connect(
                f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, check_same_thread=False
            )
            try:
                self._read(path)
            except BaseException:
                self._file.close()
                raise
        except sqlite3.Error as error:
            raise ConfigError(f"{path} is no MBTiles file ({error}); --mbtiles expects one") from error

    def _read(self, path: Path) -> None:
        self._file.execute("PRAGMA query_only = ON")
        self._file.execute(
            "PRAGMA trusted_schema = OFF"
        )  # `tiles` is often a view, and a view may hold functions
        facts = {
            str(name): str(value) for name, value in self._file.execute("SELECT name, value FROM metadata")
        }
        form = facts.get("format", "png")
        if form not in FORMATS:
            raise ConfigError(
                f"{path}: holds tiles of the format {form[:40]!r}, expected raster tiles ({', '.join(FORMATS)}); "
                "convert it to such"
            )
        low, high = self._file.execute("SELECT min(zoom_level), max(zoom_level) FROM tiles").fetchone()
        if not (isinstance(low, int) and isinstance(high, int) and 0 <= low <= high <= MAX_ZOOM):
            raise ConfigError(
                f"{path}: expected tiles with zooms of 0 to {MAX_ZOOM}, found {low!r} to {high!r}"
            )
        self.min_zoom, self.max_zoom = low, high
        west, east, south, north = self._file.execute(
            "SELECT min(tile_column), max(tile_column), min(tile_row), max(tile_row) FROM tiles WHERE zoom_level = ?",
            (low,),
        ).fetchone()
        # Of tiles, not of what the metadata says, which is often that of the whole Earth.
        self.corners = tuple(int(value) / (1 << low) for value in (west, south, east + 1, north + 1))
        self.credit = facts.get("attribution", "")[:300]

    def tile(self, zoom: int, column: int, row: int) -> tuple[str, bytes] | None:
        """Media type and bytes of a tile, rows counted from the north as in addresses of web maps; None: none is there.

        Raises:
            ConfigError: the file is damaged, or holds something else than a picture there.
        """
        if not (0 <= zoom <= MAX_ZOOM and 0 <= column < 1 << zoom and 0 <= row < 1 << zoom):
            return None
        try:
            with self._lock:
                found = self._file.execute(
                    "SELECT tile_data FROM tiles WHERE zoom_level = ? AND tile_column = ? AND tile_row = ?",
                    (zoom, column, (1 << zoom) - 1 - row),  # the file counts from the south
                ).fetchone()
        except sqlite3.Error as error:
            raise ConfigError(
                f"the map's file cannot be read: {error}; start the station with another --mbtiles"
            ) from error
        if found is None:
            return None
        data = found[0]
        for begin, kind in KINDS:
            if isinstance(data, bytes) and len(data) <= MAX_TILE_BYTES and data.startswith(begin):
                return kind, data
        raise ConfigError(f"the map's file holds no picture at {zoom}/{column}/{row}; make it anew")

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._file.close()

"""Everybody whom a device stored: records without a picture, which stays on the device until somebody wants to see it.

A picture that came is a row of the table pictures, as those of hits are; what is still to come is in wanted_pictures.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

from tagclip.runtime.picture_key import PictureKeys, opened, sealed
from tagclip.runtime.station.audit import record
from tagclip.runtime.station.database import Connection, Database
from tagclip.runtime.station.vectors import SOME, Floats, TrackVector, unit
from tagclip.runtime.sync_messages import MAX_WANTED, TRACK, Message
from tagclip.runtime.sync_track import ToldTrack

HERE, ASKED, GONE, UNASKED = "here", "asked", "gone", "on the device"  # where a track's picture is
ROW_BYTES = 900  # of a track, with its rows in the indices


def owner_of(about: str, device: str) -> bytes:
    """Whose a stored picture is, a hit's or a track's; see picture_key.py."""
    return f"{about}\n{device}".encode()


class Tracks:
    """Records of tracks and their pictures; any thread may call.

    Args:
        database: that of the station.
        keys: of the pictures.
    """

    def __init__(self, database: Database, keys: PictureKeys | None) -> None:
        self._database, self._keys = database, keys

    def shown(self, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Tracks as the API gives them, by id, as far as they are still there."""
        wanted, rows = list(ids), []
        with self._database.read() as connection:
            for start in range(0, len(wanted), SOME):
                part = wanted[start : start + SOME]
                marks = ", ".join("?" * len(part))
                rows += connection.execute(
                    "SELECT id, tracks.device, document, tracks.received_s,"
                    " EXISTS(SELECT 1 FROM pictures WHERE hit_id = id AND pictures.device = tracks.device),"
                    " (SELECT gone FROM wanted_pictures WHERE track_id = id)"
                    f" FROM tracks WHERE id IN ({marks})",
                    part,
                ).fetchall()
        return {row[0]: _shown(*row[1:]) for row in rows}

    def vector(self, id_: str) -> tuple[str, str, Floats] | None:
        """Track id, encoder id and unit vector (D,) of a track, or of a hit's track; None if there is no such."""
        with self._database.read() as connection:
            hit = connection.execute("SELECT document FROM hits WHERE id = ?", (id_,)).fetchone()
            track_id = json.loads(hit[0])["track_id"] if hit else id_
            row = connection.execute(
                "SELECT encoder_id, vector FROM tracks WHERE id = ?", (track_id,)
            ).fetchone()
        return (track_id, row[0], unit(bytes(row[1]))) if row else None

    def cameras(self) -> list[tuple[str, str, int, float, float]]:
        """Device, camera, how many people, Unix time of the first and of the last."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT device, camera, count(*), min(start_s), max(end_s) FROM tracks"
                " GROUP BY device, camera ORDER BY device, camera"
            ).fetchall()
        return [(row[0], row[1], int(row[2]), float(row[3]), float(row[4])) for row in rows]

    def picture(self, track_id: str, by: str) -> tuple[str, bytes]:
        """HERE and the JPEG, or ASKED, or GONE; and it is asked for. UNASKED if there is no such track.

        That it was looked at, or asked for, is in the audit log.

        Raises:
            KeyFileError, StoreError: it cannot be decrypted.
        """
        with self._database.write() as connection:
            row = connection.execute(
                "SELECT tracks.device, jpeg, gone FROM tracks"
                " LEFT JOIN pictures ON hit_id = tracks.id AND pictures.device = tracks.device"
                " LEFT JOIN wanted_pictures ON track_id = tracks.id WHERE tracks.id = ?",
                (track_id,),
            ).fetchone()
            if row is None:
                return UNASKED, b""
            device, jpeg, gone = row
            if jpeg is None and gone is None:
                connection.execute(
                    "INSERT INTO wanted_pictures(track_id, device, asked_s, gone) VALUES(?, ?, ?, 0)",
                    (track_id, device, time.time()),
                )
            if jpeg is not None or gone is None:
                action = "picture.ask" if jpeg is None else "picture.view"
                record(connection, by, action, track=track_id)
        if jpeg is None:
            return (GONE if gone else ASKED), b""
        return HERE, opened(bytes(jpeg), owner_of(track_id, device), self._keys, f"track {track_id}")


def is_news(connection: Connection, message: Message, about: str, now_s: float) -> bool:
    """Note a message's id; False if it came before, or what it is `about` (hit or track) was deleted for good."""
    new = connection.execute(
        "INSERT INTO messages(device, id, received_s) VALUES(?, ?, ?) ON CONFLICT DO NOTHING",
        (message.device, message.id, now_s),
    ).rowcount
    deleted = connection.execute("SELECT 1 FROM deleted_hits WHERE id = ?", (about,)).fetchone()
    return bool(new) and deleted is None


def keep_track(
    connection: Connection, message: Message, now_s: float, keys: PictureKeys | None
) -> str | None:
    """Put a message of kind TRACK or THUMBNAIL in its table; why not, if it never can be."""
    track_id = message.body["track_id"]
    row = connection.execute("SELECT device, boot_id, seq FROM tracks WHERE id = ?", (track_id,)).fetchone()
    if row and row[0] != message.device:
        return f"message.body: track {track_id} is another device's"
    if not is_news(connection, message, track_id, now_s):
        return None
    if message.kind == TRACK:
        # Of one boot the later counts; another boot tells a track again only when the one before was cut off.
        if row is None or row[1] != message.boot_id or row[2] < message.seq:
            _insert(connection, message, message.track(), now_s)
    elif row is not None:
        _take_picture(connection, track_id, message, now_s, keys)
    return None


def wanted_of(connection: Connection, device: str) -> tuple[str, ...]:
    """Ids of the tracks whose pictures a device is to send next."""
    rows = connection.execute(
        "SELECT track_id FROM wanted_pictures WHERE device = ? AND gone = 0 ORDER BY asked_s DESC LIMIT ?",
        (device, MAX_WANTED),
    ).fetchall()
    return tuple(track_id for (track_id,) in rows)


def vector_of(message: Message, received_s: float) -> TrackVector:
    """What an engine of vectors is told of a message of kind TRACK."""
    track = message.track()
    return TrackVector(
        str(track.track_id),
        message.device,
        track.camera,
        track.view,
        track.encoder_id,
        track.start_s,
        track.end_s,
        received_s,
        (track.place.latitude_deg, track.place.longitude_deg) if track.place else None,
        unit(track.codes),
    )


def delete_oldest(
    database: Database, table: str, where: str, values: tuple[object, ...], most: int, reason: str
) -> int:
    """Delete rows of `hits` or `tracks` with their pictures, in a transaction that is short: devices wait for it."""
    with database.write() as connection:
        rows = connection.execute(
            f"SELECT id FROM {table} WHERE {where} ORDER BY received_s, place LIMIT ?", (*values, most)
        ).fetchall()
        connection.executemany("DELETE FROM pictures WHERE hit_id = ?", rows)
        if table == "tracks":
            connection.executemany("DELETE FROM wanted_pictures WHERE track_id = ?", rows)
        connection.executemany(f"DELETE FROM {table} WHERE id = ?", rows)
        if rows:
            first, last = rows[0][0], rows[-1][0]
            record(
                connection,
                "station",
                f"{table}.delete",
                count=len(rows),
                reason=reason,
                first=first,
                last=last,
            )
    return len(rows)


def oldest_s(database: Database) -> float | None:
    """When the oldest track came, Unix time; None if there is none."""
    with database.read() as connection:
        row = connection.execute("SELECT min(received_s) FROM tracks").fetchone()
    return None if row[0] is None else float(row[0])


def _insert(connection: Connection, message: Message, track: ToldTrack, now_s: float) -> None:
    """As a new row, also where there was one: whoever keeps vectors in memory reads what is new."""
    document = {key: value for key, value in message.body.items() if key != "vector"}
    place = track.place
    connection.execute("DELETE FROM tracks WHERE id = ?", (str(track.track_id),))
    connection.execute(
        "INSERT INTO tracks(id, device, camera, view, encoder_id, start_s, end_s, latitude_deg, longitude_deg,"
        " received_s, boot_id, seq, document, vector) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            str(track.track_id),
            message.device,
            track.camera,
            track.view,
            track.encoder_id,
            track.start_s,
            track.end_s,
            place.latitude_deg if place else None,
            place.longitude_deg if place else None,
            now_s,
            message.boot_id,
            message.seq,
            json.dumps(document),
            track.codes,
        ),
    )


def _take_picture(
    connection: Connection, track_id: str, message: Message, now_s: float, keys: PictureKeys | None
) -> None:
    jpeg = message.jpeg()
    if not jpeg:
        connection.execute("UPDATE wanted_pictures SET gone = 1 WHERE track_id = ?", (track_id,))
        return
    connection.execute(
        "INSERT INTO pictures(hit_id, device, revision, received_s, jpeg) VALUES(?, ?, 1, ?, ?)"
        " ON CONFLICT(hit_id, device) DO UPDATE SET jpeg = excluded.jpeg",
        (track_id, message.device, now_s, sealed(jpeg, owner_of(track_id, message.device), keys)),
    )
    connection.execute("DELETE FROM wanted_pictures WHERE track_id = ?", (track_id,))


def _shown(device: str, document: str, received_s: float, here: int, gone: int | None) -> dict[str, Any]:
    row = json.loads(document)
    place = row["place"]
    return {
        "track_id": row["track_id"],
        "device": device,
        "camera": row["camera"],
        "view": row["view"],
        "encoder_id": row["encoder_id"],
        "start_s": row["start_s"],
        "end_s": row["end_s"],
        "best": {"time_s": row["best_s"], "frame": row["frame"], "box_xywh_px": row["box_xywh_px"]},
        "frame_px": row["frame_px"],
        "place": [place["latitude_deg"], place["longitude_deg"], place["error_m"]] if place else None,
        "crops": row["crops"],
        "received_s": received_s,
        "picture": HERE if here else UNASKED if gone is None else GONE if gone else ASKED,
    }

"""The station's pictures encrypted at rest: which keys it needs, and how those of before get the newest."""

from __future__ import annotations

from collections.abc import Callable

from tagclip.runtime.picture_key import PictureKeys, key_id, missing_key, opened, sealed
from tagclip.runtime.station.audit import record
from tagclip.runtime.station.database import Database
from tagclip.runtime.station.tracks import owner_of

AT_ONCE = 50  # pictures in one transaction


def check_keys(database: Database, keys: PictureKeys | None) -> None:
    """Refuse keys that would leave pictures unreadable, or new ones plain beside encrypted ones; remember the first.

    Raises:
        KeyFileError: pictures may be encrypted with a key that was not given.
    """
    with database.read() as connection:
        used = {str(name) for (name,) in connection.execute("SELECT id FROM picture_keys").fetchall()}
    if missing := used - (keys.ids if keys else frozenset()):
        raise missing_key("the station", missing, keys)
    if keys is not None and keys.id not in used:
        with database.write() as connection:
            connection.execute("INSERT INTO picture_keys(id) VALUES(?)", (keys.id,))
            record(connection, "console", "pictures.key", key=keys.id)


def seal_pictures(database: Database, keys: PictureKeys, progress: Callable[[int, int], None]) -> int:
    """Encrypt every picture with the first key that is plain, or by another key; how many that were.

    Done in small transactions, so it can be cut off and begun again; other keys are forgotten at the end.

    Args:
        progress: called with pictures done and all.

    Raises:
        KeyFileError: a key is missing; as `check_keys`.
        StoreError: a picture is damaged; those before it are encrypted.
    """
    check_keys(database, keys)
    with database.read() as connection:
        todo = connection.execute("SELECT hit_id, device FROM pictures ORDER BY hit_id, device").fetchall()
    done = 0
    for start in range(0, len(todo), AT_ONCE):
        part = todo[start : start + AT_ONCE]
        with database.write() as connection:
            for hit_id, device in part:
                where = "WHERE hit_id = ? AND device = ?"
                row = connection.execute(f"SELECT jpeg FROM pictures {where}", (hit_id, device)).fetchone()
                if row is None or key_id(stored := bytes(row[0])) == keys.id:
                    continue
                owner = owner_of(hit_id, device)
                picture = sealed(opened(stored, owner, keys, f"hit {hit_id}"), owner, keys)
                connection.execute(f"UPDATE pictures SET jpeg = ? {where}", (picture, hit_id, device))
                done += 1
        progress(start + len(part), len(todo))
    with database.write() as connection:
        connection.execute("DELETE FROM picture_keys WHERE id <> ?", (keys.id,))
        record(connection, "console", "pictures.encrypt", count=done, key=keys.id)
    database.fold()
    return done

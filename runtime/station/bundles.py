"""The bundles that the station hands out, and the signed orders that say which device is to have which."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tagclip.runtime.bundle import copy_bundle, open_bundle, sums_bytes
from tagclip.runtime.bundle_manifest import ENGINES, SIGNATURE, SUMS, is_plain_name
from tagclip.runtime.bundle_order import DIGEST, MAX_DEVICES, MAX_FILES, Order, Ordered, digest_of, sign_order
from tagclip.runtime.errors import BundleIntegrityError, ConfigError, OutputError
from tagclip.runtime.files import folder_atomic
from tagclip.runtime.keys import PrivateKey
from tagclip.runtime.probe import load_probe
from tagclip.runtime.station.audit import record
from tagclip.runtime.station.database import Connection, Database

MAX_UPLOAD_BYTES = 1 << 30  # what a device takes
MAX_UPLOADS = 4  # that are not ordered yet
MAX_PART_BYTES = 1 << 20


class Bundles:
    """A folder with one bundle by digest, and orders in the records; any thread, and other processes, may call.

    Args:
        database: that of the station.
        folder: of the bundles; made on first use.
        key: signs the orders.
    """

    def __init__(self, database: Database, folder: Path, key: Callable[[], PrivateKey]) -> None:
        self._database, self._folder, self._key = database, folder, key

    # ---- by admins

    def push(self, bundle: Path, devices: tuple[str, ...] | None, by: str) -> Order:
        """Keep a copy of a bundle and order it for `devices`, for all of them (also later ones) if None.

        Raises:
            BundleError: it cannot be opened, or no device could prove it; nothing is kept.
            ConfigError: no such device.
            OutputError: there is no room.
        """
        self._check(devices)
        opened = open_bundle(bundle)
        load_probe(opened)
        sums = sums_bytes(opened.sha256)
        digest, target = digest_of(sums), self._folder / digest_of(sums)
        with folder_atomic(target, replace=True) as work:
            copy_bundle(opened, work)
            kept = open_bundle(work)
            files = {name: (work / name).stat().st_size for name in (*kept.sha256, SUMS)}
            if (work / SIGNATURE).exists():
                files[SIGNATURE] = (work / SIGNATURE).stat().st_size
            size = sum(files.values())
            if (
                digest_of(sums_bytes(kept.sha256)) != digest
                or len(files) > MAX_FILES
                or size > MAX_UPLOAD_BYTES
            ):
                raise BundleIntegrityError(
                    f"{bundle} changed while it was read, or is more than devices take: {MAX_FILES} files and "
                    f"{MAX_UPLOAD_BYTES:,} bytes"
                )
        return self._order(Ordered(digest, kept.encoder_id, kept.manifest.name, files), devices, by)

    def upload(self, digest: str, name: str, offset: int, data: bytes) -> int:
        """Keep a part of a file for `push_uploaded`; how many bytes of it are here now.

        Raises:
            ConfigError: no such name, another offset than the bytes that are here, or too much.
        """
        if not DIGEST.fullmatch(digest) or not (is_plain_name(name) and name != ENGINES):
            raise ConfigError("expected a digest of 64 hexadecimal digits, and the plain name of a file")
        folder = self._upload(digest)
        waiting = {path for path in self._folder.glob(".upload-*") if path != folder}
        if len(waiting) >= MAX_UPLOADS:
            shutil.rmtree(min(waiting, key=lambda path: path.stat().st_mtime), ignore_errors=True)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            there = list(folder.iterdir())
            size = sum(path.stat().st_size for path in there)
            if size + len(data) > MAX_UPLOAD_BYTES or len(there) > MAX_FILES:
                raise ConfigError(f"a bundle has at most {MAX_FILES} files and {MAX_UPLOAD_BYTES:,} bytes")
            path = folder / name
            have = path.stat().st_size if path.exists() else 0
            if offset != have:
                raise ConfigError(
                    f"offset: expected {have}, as so many bytes of {name} are here, found {offset}"
                )
            with open(path, "ab") as file:
                file.write(data)
        except OSError as error:
            raise OutputError(f"cannot write into {folder}: {error.strerror or error}; make room") from error
        return have + len(data)

    def push_uploaded(self, digest: str, devices: tuple[str, ...] | None, by: str) -> Order:
        """Order what was uploaded, or was pushed before; see `push`."""
        self._check(devices)
        folder = self._upload(digest)
        if not DIGEST.fullmatch(digest) or not folder.is_dir():
            found = {row["digest"]: row for row in self.listed()}.get(digest)
            if found is None:
                raise ConfigError(f"no bundle {digest[:64]!r} was uploaded; PUT its files first")
            return self.push(self._folder / digest, devices, by)
        try:
            with suppress(OSError):
                if digest_of((folder / SUMS).read_bytes()) != digest:
                    raise BundleIntegrityError(
                        f"the {SUMS} that was uploaded has another digest than the URL"
                    )
            return self.push(folder, devices, by)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def withdraw(self, digest: str, by: str) -> bool:
        """Order it for nobody any more; who runs it keeps it, until another is pushed. False if there is no such."""
        with self._database.write() as connection:
            row = connection.execute("SELECT name FROM bundles WHERE digest = ?", (digest,)).fetchone()
            if not row:
                return False
            rows = _orders(connection)
            names = [
                name for (name,) in connection.execute("SELECT name FROM devices ORDER BY name").fetchall()
            ]
            theirs = tuple(name for name in names if (found := _newest(rows, name)) and found[1] == digest)
            revision = _next(connection)
            connection.execute("DELETE FROM bundle_orders WHERE digest = ?", (digest,))
            connection.execute("DELETE FROM bundles WHERE digest = ?", (digest,))
            for start in range(0, len(theirs), MAX_DEVICES):
                self._insert(
                    connection, revision + start // MAX_DEVICES, theirs[start : start + MAX_DEVICES], None
                )
            record(connection, by, "bundle.withdraw", bundle=digest, name=row[0], devices=list(theirs))
        shutil.rmtree(self._folder / digest, ignore_errors=True)
        return True

    def listed(self) -> list[dict[str, Any]]:
        """Bundles, the newest first: digest, name, encoder_id, bytes, pushed_s, pushed_by; devices that it is ordered
        for, null for all."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT digest, name, encoder_id, bytes, pushed_s, pushed_by FROM bundles"
                " ORDER BY pushed_s DESC, digest"
            ).fetchall()
            orders = _orders(connection)
        names = ("digest", "name", "encoder_id", "bytes", "pushed_s", "pushed_by")
        return [dict(zip(names, row, strict=True)) | {"devices": _devices(orders, row[0])} for row in rows]

    # ---- for devices

    def order_of(self, device: str) -> tuple[int, str | None, str] | None:
        """Revision, digest (None: nothing is wanted) and signed JSON of a device's order; None: there is none."""
        with self._database.read() as connection:
            return _newest(_orders(connection), device)

    def part(self, device: str, digest: str, name: str, offset: int, most: int) -> bytes | None:
        """Bytes of a file of the bundle that is ordered for the device; None if it is not, or has no such file."""
        order = self.order_of(device)
        if order is None or order[1] != digest or name not in json.loads(order[2])["bundle"]["files"]:
            return None
        try:
            with open(self._folder / digest / name, "rb") as file:
                file.seek(offset)
                return file.read(min(most, MAX_PART_BYTES))
        except OSError:  # withdrawn meanwhile
            return None

    def shown(self, devices: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Devices as Store.devices gives them, each with its `bundle`: what it says of it, and what is ordered."""
        with self._database.read() as connection:
            orders = _orders(connection)
        result = []
        for device in devices:
            told, order = device["status"] or {}, _newest(orders, device["name"])
            result.append(
                {
                    **device,
                    "bundle": {
                        "digest": told.get("bundle_digest"),
                        "ordered": order[1] if order else None,
                        "revision": order[0] if order else None,
                        # What it says of an older order is no word about this one.
                        "state": told.get("bundle_state")
                        if not order
                        or told.get("bundle_revision") == order[0]
                        or told.get("bundle_state") == "fixed"
                        else "waiting",
                        "percent": told.get("bundle_percent"),
                        "reason": told.get("bundle_reason") or None,
                    },
                }
            )
        return result

    # ---- within

    def _upload(self, digest: str) -> Path:
        return self._folder / f".upload-{digest}"

    def _check(self, devices: tuple[str, ...] | None) -> None:
        if devices is None:
            return
        if not 1 <= len(devices) <= MAX_DEVICES:
            raise ConfigError(f"expected 1 to {MAX_DEVICES} devices, found {len(devices)}; name none for all")
        with self._database.read() as connection:
            known = {name for (name,) in connection.execute("SELECT name FROM devices").fetchall()}
        if strangers := [name for name in devices if name not in known]:
            raise ConfigError(
                f"{strangers[0][:80]!r} is not enrolled; there are {', '.join(sorted(known)) or 'none'}"
            )

    def _order(self, ordered: Ordered, devices: tuple[str, ...] | None, by: str) -> Order:
        now_s = time.time()
        with self._database.write() as connection:
            order = self._insert(connection, _next(connection), devices, ordered)
            connection.execute(
                "INSERT INTO bundles(digest, name, encoder_id, bytes, pushed_s, pushed_by) VALUES(?, ?, ?, ?, ?, ?)"
                " ON CONFLICT(digest) DO UPDATE SET bytes = excluded.bytes, pushed_s = excluded.pushed_s,"
                " pushed_by = excluded.pushed_by",
                (ordered.digest, ordered.name, ordered.encoder_id, ordered.bytes, now_s, by),
            )
            told = None if devices is None else list(devices)
            record(
                connection, by, "bundle.push", bundle=ordered.digest, name=ordered.name,
                encoder_id=ordered.encoder_id, revision=order.revision, devices=told,
            )  # fmt: skip
        return order

    def _insert(
        self,
        connection: Connection,
        revision: int,
        devices: tuple[str, ...] | None,
        bundle: Ordered | None,
    ) -> Order:
        order = Order(revision, round(time.time(), 3), devices, bundle)
        # Those that this one stands in for, for all of their devices.
        for old, _, named, _ in _orders(connection):
            if devices is None or (named is not None and set(named) <= set(devices)):
                connection.execute("DELETE FROM bundle_orders WHERE revision = ?", (old,))
        connection.execute(
            "INSERT INTO bundle_orders(revision, digest, devices, document) VALUES(?, ?, ?, ?)",
            (
                revision,
                bundle.digest if bundle else None,
                None if devices is None else json.dumps(devices),
                json.dumps(sign_order(order, self._key()), separators=(",", ":")),
            ),
        )
        return order


_Row = tuple[int, "str | None", "list[str] | None", str]


def _orders(connection: Connection) -> list[_Row]:
    """Revision, digest, devices and document, the newest first."""
    rows = connection.execute(
        "SELECT revision, digest, devices, document FROM bundle_orders ORDER BY revision DESC"
    ).fetchall()
    return [(row[0], row[1], json.loads(row[2]) if row[2] else None, row[3]) for row in rows]


def _newest(orders: list[_Row], device: str) -> tuple[int, str | None, str] | None:
    for revision, digest, devices, document in orders:
        if devices is None or device in devices:
            return revision, digest, document
    return None


def _devices(orders: list[_Row], digest: str) -> list[str] | None:
    """For whom it is ordered; of names that a newer order took away again, not."""
    taken: set[str] = set()
    named: set[str] = set()
    for _, found, devices, _ in orders:
        if devices is None:
            return None if found == digest else sorted(named)
        if found == digest:
            named |= set(devices) - taken
        taken |= set(devices)
    return sorted(named)


def _next(connection: Connection) -> int:
    """The next revision: the time, so that a station that was restored from a backup is not behind its devices."""
    (last,) = connection.execute("SELECT max(revision) FROM bundle_orders").fetchone()
    return max((last or 0) + 1, int(time.time()))

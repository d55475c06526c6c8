"""A station with people, devices and hits, for the tests of its pages, their pictures in docs/page/ and their times."""

from __future__ import annotations

import base64
import functools
import http.client
import json
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tagclip.runtime.ids import uuid7
from tagclip.runtime.station.server import Server
from tagclip.runtime.station.station import Encoder, Station, say_address
from tagclip.runtime.station.tls import own_identity
from tagclip.runtime.sync_messages import Batch

PASSWORD = "correct horse battery"
PEOPLE = (("root", "admin"), ("olga", "operator"), ("rita", "reviewer"))
DATA = Path(__file__).parent.parent.parent / "runtime" / "data"
BOOT = str(uuid7())
# Whom queries describe, and which of `crops` show them: pictures in the docs that fit nobody would be laughed at.
FITTING = {
    "a woman in a dark red jacket and light blue trousers with a yellow backpack": (4, 9, 14, 20),
    "a woman in a purple jacket and black trousers": (5, 10, 16, 22, 26, 29),
    "a light blue checked shirt, red trousers and a blue hand bag": (1, 3, 7, 12, 18, 23, 27),
}
TEXTS = tuple(FITTING)
_OF_TRACK = (
    "track_id", "camera", "encoder_id", "start_s", "end_s", "best_s", "frame", "box_xywh_px", "frame_px", "place",
    "crops",
)  # fmt: skip


@functools.cache
def crops() -> tuple[bytes, ...]:
    """JPEGs of the people in the example clip, cut out with some room around."""
    facts = json.loads((DATA / "example.json").read_text())
    video, found = cv2.VideoCapture(str(DATA / "example.mp4")), []
    for frame in facts["frames"]:
        ok, image = video.read()
        if not ok:
            break
        if frame["frame"] % 20 != 10:
            continue
        for person in frame["people"]:
            x, y, w, h = person["box_xywh_px"]
            x0, y0 = max(0, int(x - w / 6)), max(0, int(y - h / 8))
            x1, y1 = int(x + w * 7 / 6), int(y + h * 9 / 8)
            if w < 28 or h < 70 or y < 5 or y + h > facts["height_px"] - 5:
                continue
            big = cv2.resize(image[y0:y1, x0:x1], None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
            found.append(cv2.imencode(".jpg", big, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())
    return tuple(found)


def vectors() -> Any:
    """float32 (crops, D): how the people of `crops` look to the bundle that ships."""
    from tagclip.runtime.bundle import open_bundle
    from tagclip.runtime.encoder import ImageEncoder

    images = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for jpeg in crops()]
    return ImageEncoder(open_bundle(None), "ground").embed([np.ascontiguousarray(image) for image in images])


class World:
    """A station in `folder` with an admin root, an operator olga and a reviewer rita, who have the password PASSWORD.

    Args:
        bundle: None for the one that ships.
    """

    def __init__(self, folder: Path, bundle: Path | None = None) -> None:
        import argon2

        self.station = Station(folder, own_identity(folder / "tls", ["127.0.0.1"]), Encoder(bundle))
        # argon2 all the same, but hundreds of times as fast as it is meant to be.
        self.station.users._hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
        for name, role in PEOPLE:
            one_time = self.station.users.add(name, role, "test")
            self.station.users.set_password(name, one_time, PASSWORD)
        self.sequence = 0
        self._random = np.random.default_rng(7)

    @contextmanager
    def served(self) -> Iterator[int]:
        """The port of loopback at which the station answers meanwhile, as `tagclip station` makes it."""
        with Server(self.station, ("127.0.0.1", 0)) as server:
            say_address(self.station.data, f"127.0.0.1:{server.port}", self.station.identity.fingerprint())
            yield server.port

    def connect(self, port: int) -> http.client.HTTPSConnection:
        """To the station on `port`, whose certificate is checked."""
        context = ssl.create_default_context(cafile=str(self.station.identity.ca))
        return http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)

    def enrol(self, name: str) -> str:
        """The token of a new device."""
        code, _ = self.station.store.make_code(name, "test")
        token = self.station.store.enrol(code, name, "0.1.0", self.station.encoder.encoder_id, "test")
        assert token
        return token

    def query(self, text: str, **changes: Any) -> str:
        """The id of a standing query."""
        query = {
            "text": text,
            "view": "auto",
            "vector": self.station.encoder.vector(text),
            "encoder_id": self.station.encoder.encoder_id,
            "alarms_per_hour": 0.5,
            "alarms_per_1000": None,
            "reason": "missing since noon, case 17",
            "expires_s": time.time() + 86400,
        }
        return str(self.station.queries.add(query | changes, "olga")["id"])

    def hit(self, device: str, query: str, text: str, **changes: Any) -> dict[str, Any]:
        """The body of a message of a hit."""
        self.sequence += 1
        n, now_s = self.sequence, time.time()
        score = float(self._random.uniform(0.3, 0.6))
        return {
            "id": str(uuid7()),
            "revision": 1,
            "query_id": query,
            "query": text,
            "track_id": str(uuid7()),
            "camera": ("north gate", "mast", "car park")[n % 3],
            "view": ("aerial", "ground")[n % 2],
            "encoder_id": self.station.encoder.encoder_id,
            "score": round(score, 4),
            "p_value": float(f"{np.exp(-22 * score):.3g}"),
            "false_alarms_per_hour": float(f"{400 * np.exp(-22 * score):.3g}"),
            "threshold": 0.28,
            "start_s": now_s - 9,
            "end_s": now_s - 1,
            "best_s": now_s - 4,
            "frame": 10 * n,
            "box_xywh_px": [300.0 + n % 200, 120.0, 60.0, 119.0],
            "frame_px": [768, 432],
            "place": {
                "latitude_deg": 46.5 + float(self._random.normal(0, 0.004)),
                "longitude_deg": 8.3 + float(self._random.normal(0, 0.006)),
                "error_m": float(self._random.uniform(4, 40)),
            },
            "crops": 3 + n % 9,
            "review": "unreviewed",
        } | changes

    def looks(self, count: int) -> Any:
        """float32 (count, D): how people look whom nobody drew, in the bundle's space."""
        size = len(self.station.encoder.vector(TEXTS[0]))
        return self._random.standard_normal((count, size)).astype(np.float32)

    def people_seen(self, device: str, count: int, vectors: Any) -> None:
        """Tracks of `count` people as a device tells them, and some of their pictures.

        Args:
            vectors: float32 (crops, D), of `crops()`.
        """
        from tagclip.runtime.station.device_api import hand_in

        for start in range(0, count, 20):
            rows: list[tuple[str, dict[str, Any]]] = []
            for n in range(start, min(start + 20, count)):
                hit = self.hit(device, "", "")
                vector = vectors[n % len(vectors)] + self._random.normal(0, 0.02, vectors.shape[1])
                codes = np.round(127 * vector / np.abs(vector).max()).astype(np.int8)
                track = {name: hit[name] for name in _OF_TRACK} | {"view": "ground"}
                rows.append(("track", track | {"vector": base64.b64encode(codes).decode()}))
                if n % 5:
                    jpeg = base64.b64encode(crops()[n % len(vectors)]).decode()
                    rows.append(("picture", {"hit_id": track["track_id"], "revision": 1, "jpeg": jpeg}))
            messages = [self.message(device, kind, body) for kind, body in rows]
            batch = {"device": device, "messages": messages, "status": {}}
            answer = hand_in(self.station, device, json.dumps(batch).encode())
            assert not answer["rejected"], answer["rejected"]

    def message(self, device: str, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        """As a device's outbox makes it."""
        self.sequence += 1
        return {
            "id": str(uuid7()), "device": device, "kind": kind, "made_s": time.time(), "boot_id": BOOT,
            "seq": self.sequence, "body": body,
        }  # fmt: skip

    def batch(
        self, device: str, *hits: dict[str, Any], pictures: bool = True, **status: Any
    ) -> dict[str, Any]:
        """What a device hands in."""
        rows = []
        for hit in hits:
            bodies: list[tuple[str, dict[str, Any]]] = [("hit", hit)]
            if pictures:
                fitting = FITTING.get(hit["query"], tuple(range(len(crops()))))
                jpeg = crops()[fitting[self.sequence % len(fitting)]]
                jpeg_text = base64.b64encode(jpeg).decode()
                bodies.append(
                    ("picture", {"hit_id": hit["id"], "revision": hit["revision"], "jpeg": jpeg_text})
                )
            rows += [self.message(device, kind, body) for kind, body in bodies]
        return {"device": device, "messages": rows, "status": status}

    def take(self, device: str, *hits: dict[str, Any], **more: Any) -> None:
        """As if a device had handed them in; nobody who waits is told."""
        given = self.batch(device, *hits, **more)
        answer = self.station.store.take(Batch(device, given["messages"], given["status"]))
        assert not answer.rejected, answer.rejected

    def fill(self, hits: int, devices: int) -> list[str]:
        """Devices that reported, three queries, and hits over the last day, some decided about. Returns the queries."""
        names = [f"drone-{n + 1}" if n % 3 else f"mast-{n + 1}" for n in range(devices)]
        for name in names:
            self.enrol(name)
        queries = [self.query(text) for text in TEXTS]
        batch_hits: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        now_s = time.time()
        for n in range(hits):
            name = names[n % devices]
            best_s = now_s - 80000 * (1 - n / max(hits, 1)) - 30
            which = n % len(queries)
            hit = self.hit(
                name, queries[which], TEXTS[which], start_s=best_s - 4, best_s=best_s, end_s=best_s + 3
            )
            batch_hits[name].append(hit)
        for k, (name, own) in enumerate(batch_hits.items()):
            status = {
                "now_s": now_s, "depth": 0 if k % 7 else 14 * k, "bytes": 0 if k % 7 else 91_000 * k,
                "oldest_s": None if k % 7 else 340.0, "dropped_hits": 0, "dropped_pictures": 3 if k == 7 else 0,
                "rejected": 0, "temperature_c": 48.0 + 5 * k % 43, "queries_revision": 4,
            }  # fmt: skip
            for at in range(0, len(own), 20):  # the pictures of old ones were never sent: nobody looks there
                self.take(name, *own[at : at + 20], pictures=at + 40 >= len(own), **status)
            if not own:
                self.take(name, **status)
        with self.station.database.write() as connection:
            for review, fits in (("confirmed", "place % 9 = 4"), ("rejected", "place % 4 = 1")):
                connection.execute(
                    f"UPDATE hits SET review = ?, reviewed_by = 'rita', reviewed_s = received_s + 60 WHERE {fits}",
                    (review,),
                )
            connection.execute(
                "UPDATE devices SET revision = (SELECT revision FROM query_set) WHERE rowid % 11 != 5"
            )
            connection.execute("UPDATE devices SET seen_s = seen_s - 3600 WHERE rowid % 13 = 6")
            connection.execute("UPDATE devices SET seen_s = seen_s - 240 WHERE rowid % 13 = 9")
        return queries


class Device:
    """Hands hits in over TLS, with the token of an enrolled device."""

    def __init__(self, world: World, port: int, name: str) -> None:
        self.world, self.name, self.token = world, name, world.enrol(name)
        self.connection = world.connect(port)

    def report(self, *hits: dict[str, Any]) -> None:
        """Hand `hits` and their pictures in; whoever waits is told."""
        body = json.dumps(self.world.batch(self.name, *hits, depth=0))
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        self.connection.request("POST", "/api/v1/device/messages", body, headers)
        answer = json.loads(self.connection.getresponse().read())
        assert len(answer["acks"]) == 2 * len(hits), answer


@contextmanager
def opened(folder: Path, bundle: Path | None = None) -> Iterator[World]:
    """A World that is closed at the end."""
    world = World(folder / "data", bundle)
    try:
        yield world
    finally:
        world.station.close()

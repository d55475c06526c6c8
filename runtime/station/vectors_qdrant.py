"""`Vectors` in a Qdrant cluster, for more tracks than one machine scans: nearest neighbours that are nearly exact.

A collection holds the tracks of one encoder of one station. Qdrant searches its HNSW graph over int8 codes, which stay
in memory, and compares the best of them again by the vectors as they were sent.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from tagclip.runtime.errors import ConfigError, MissingExtraError, StoreError
from tagclip.runtime.station.database import Database
from tagclip.runtime.station.vectors import AT_ONCE, SOME, Floats, Found, TrackVector, unit
from tagclip.runtime.vector_scan import Where

if TYPE_CHECKING:
    from qdrant_client import QdrantClient, models

ANSWER_S = 20
OVERSAMPLING = 2.0  # of the best by their codes, compared again by their vectors
API_KEY = "QDRANT_API_KEY"
UPLOAD = 512  # tracks in one request

_Result = TypeVar("_Result")
log = logging.getLogger(__name__)


class QdrantVectors:
    """The engine of vectors on other machines; any thread may call.

    What it lacks of the tracks in the records it is told when this is made.

    Args:
        client: of the cluster.
        station: whose tracks these are: bytes that no other station on the cluster has.
        database: with the table of tracks.

    Raises:
        StoreError: the cluster is out of reach, or refuses.
    """

    def __init__(self, client: QdrantClient, station: bytes, database: Database) -> None:
        self._client = client
        self._prefix = f"tagclip-{hashlib.sha256(station).hexdigest()[:12]}-"
        self._known: set[str] = set()
        self._database = database
        self._fill()

    def add(self, tracks: Sequence[TrackVector]) -> None:
        """See `Vectors`. Raises: StoreError: nobody knows whether they are found; tell it again."""
        # As the records have them by now: a message that came late is no news, and who was deleted stays so.
        for start in range(0, len(tracks), SOME):
            ids = [track.track_id for track in tracks[start : start + SOME]]
            marks = ", ".join("?" * len(ids))
            with self._database.read() as connection:
                rows = connection.execute(
                    f"SELECT {_COLUMNS} FROM tracks WHERE id IN ({marks})", ids
                ).fetchall()
            self._put([_track(row) for row in rows])

    def _put(self, tracks: Sequence[TrackVector]) -> None:
        from qdrant_client import models

        points: dict[str, list[models.PointStruct]] = {}
        for track in tracks:
            place = track.place and {"lat": track.place[0], "lon": track.place[1]}
            payload = {name: getattr(track, name) for name in _PAYLOAD} | ({"place": place} if place else {})
            point = models.PointStruct(id=track.track_id, vector=track.vector.tolist(), payload=payload)
            points.setdefault(self._collection(track.encoder_id, len(track.vector)), []).append(point)
        for name, these in points.items():
            for start in range(0, len(these), UPLOAD):
                part = these[start : start + UPLOAD]
                try:
                    _ask(self._client.upsert, name, part, wait=True)
                except StoreError:
                    self._known.discard(name)  # it may be gone, and is made anew the next time
                    raise

    def remove_before(self, received_s: float) -> None:
        """See `Vectors`; and those who were deleted for good. Raises: StoreError."""
        from qdrant_client import models

        with self._database.read() as connection:
            deleted = [row[0] for row in connection.execute("SELECT id FROM deleted_hits").fetchall()]
        old = models.Filter(must=[models.FieldCondition(key="received_s", range=models.Range(lt=received_s))])
        for name in self._collections():
            _ask(self._client.delete, name, models.FilterSelector(filter=old))
            if deleted:  # ids of hits, too, which are of nobody here
                _ask(self._client.delete, name, models.PointIdsList(points=deleted))

    def search(self, vector: Floats, encoder_id: str, where: Where, top: int) -> Found:
        """See `Vectors`. Raises: StoreError."""
        from qdrant_client import models

        own, narrow = self._name(encoder_id, len(vector)), _filter(where)
        counts = {
            name: _ask(self._client.count, name, count_filter=narrow, exact=True).count
            for name in self._collections()
        }
        compared = counts.pop(own, 0)
        tracks = []
        if compared:
            again = models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
            answer = _ask(
                self._client.query_points, own, query=vector.tolist(), query_filter=narrow, limit=top,
                with_payload=False, search_params=models.SearchParams(quantization=again),
            )  # fmt: skip
            tracks = [(str(point.id), float(point.score)) for point in answer.points]
        return Found(tracks, compared, sum(counts.values()))

    def _name(self, encoder_id: str, dim: int) -> str:
        return f"{self._prefix}{hashlib.sha256(encoder_id.encode()).hexdigest()[:16]}-{dim}"

    def _collections(self) -> list[str]:
        found = _ask(self._client.get_collections).collections
        return [each.name for each in found if each.name.startswith(self._prefix)]

    def _collection(self, encoder_id: str, dim: int) -> str:
        """Its name; made when it is absent."""
        from qdrant_client import models

        name = self._name(encoder_id, dim)
        if name in self._known:
            return name
        if not _ask(self._client.collection_exists, name):
            codes = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
            _ask(
                self._client.create_collection,
                name,
                models.VectorParams(size=dim, distance=models.Distance.COSINE, on_disk=True),
                quantization_config=models.ScalarQuantization(scalar=codes),
            )
        for key, kind in _INDICES.items():
            _ask(self._client.create_payload_index, name, key, kind)
        self._known.add(name)
        return name

    def _fill(self) -> None:
        """Tell what is in the records and not here: the cluster is new, lost something, or was away."""
        with self._database.read() as connection:
            counted = connection.execute(
                "SELECT encoder_id, length(vector), count(*) FROM tracks GROUP BY encoder_id, length(vector)"
            ).fetchall()
        here = self._collections()
        for encoder_id, dim, count in counted:
            name = self._name(encoder_id, dim)
            if name in here and _ask(self._client.count, name, exact=True).count == count:
                continue
            log.info("telling the engine of vectors %d tracks of encoder %s", count, encoder_id[:12])
            last = 0
            while rows := self._rows(encoder_id, last):
                self._put([_track(row) for row in rows if len(row[-1]) == dim])
                last = rows[-1][0]

    def _rows(self, encoder_id: str, after: int) -> list[Any]:
        with self._database.read() as connection:
            return connection.execute(
                f"SELECT {_COLUMNS} FROM tracks WHERE encoder_id = ? AND place > ? ORDER BY place LIMIT ?",
                (encoder_id, after, AT_ONCE),
            ).fetchall()


# As `_track` reads them.
_COLUMNS = (
    "place, id, device, camera, view, encoder_id, start_s, end_s, received_s,"
    " latitude_deg, longitude_deg, vector"
)
_PAYLOAD = ("device", "camera", "view", "start_s", "end_s", "received_s")
_INDICES = {
    **dict.fromkeys(("device", "camera", "view"), "keyword"),
    **dict.fromkeys(("start_s", "end_s", "received_s"), "float"),
    "place": "geo",
}


def open_qdrant(url: str, station: bytes, database: Database) -> QdrantVectors:
    """The engine at `url`, that of --vectors; its key is in the environment, QDRANT_API_KEY.

    Raises:
        ConfigError: no such URL, or one that would send vectors and the key unencrypted over a network.
        StoreError: it does not answer.
        MissingExtraError: the extra `qdrant` is not installed.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 6333
    except ValueError as error:
        raise ConfigError(f"--vectors: {error}; expected https://HOST:6333") from error
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            f"--vectors: expected https://HOST:6333 and nothing else; a key is taken from {API_KEY}"
        )
    if not parts.hostname or (
        parts.scheme != "https" and not (parts.scheme == "http" and _is_here(parts.hostname))
    ):
        raise ConfigError(
            f"--vectors: expected https://HOST:6333, or http:// of this machine, found {url[:100]!r};"
            " vectors say how people look"
        )
    try:
        from qdrant_client import QdrantClient
    except ImportError as error:
        raise MissingExtraError("--vectors needs qdrant-client: pip install 'tagclip[qdrant]'") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a key over http, on this machine
        client = QdrantClient(
            url=f"{parts.scheme}://{parts.hostname}:{port}", prefix=parts.path.strip("/") or None,
            api_key=os.environ.get(API_KEY) or None, timeout=ANSWER_S, check_compatibility=False,
        )  # fmt: skip
    return QdrantVectors(client, station, database)


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _filter(where: Where) -> models.Filter | None:
    from qdrant_client import models

    must: list[Any] = []
    if where.after_s is not None:
        must.append(models.FieldCondition(key="end_s", range=models.Range(gte=where.after_s)))
    if where.before_s is not None:
        must.append(models.FieldCondition(key="start_s", range=models.Range(lte=where.before_s)))
    for key, wanted in (("camera", where.cameras), ("device", where.devices), ("view", where.views)):
        if wanted is not None:
            must.append(models.FieldCondition(key=key, match=models.MatchAny(any=sorted(wanted))))
    if where.near is not None:
        latitude, longitude, radius_m = where.near
        around = models.GeoRadius(center=models.GeoPoint(lat=latitude, lon=longitude), radius=radius_m)
        must.append(models.FieldCondition(key="place", geo_radius=around))
    return models.Filter(must=must) if must else None


def _ask(what: Callable[..., _Result], *values: Any, **named: Any) -> _Result:
    try:
        return what(*values, **named)
    except Exception as error:  # the client raises its own, httpx's and pydantic's
        raise StoreError(
            f"the engine of vectors (--vectors) does not answer as it should: {str(error)[:300]}"
        ) from error


def _track(row: Any) -> TrackVector:
    (_, id_, device, camera, view, encoder_id, *times, latitude_deg, longitude_deg, codes) = row
    start_s, end_s, received_s = times
    place = None if latitude_deg is None else (latitude_deg, longitude_deg)
    return TrackVector(id_, device, camera, view, encoder_id, start_s, end_s, received_s, place, unit(codes))

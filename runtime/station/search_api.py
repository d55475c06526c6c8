"""What is asked of everybody stored: who fits a text, who looks like somebody, who comes near to a standing query."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from tagclip.runtime.errors import BackgroundError
from tagclip.runtime.query import check_query
from tagclip.runtime.station.audit import record
from tagclip.runtime.station.candidates import candidates
from tagclip.runtime.station.operator_api import whole
from tagclip.runtime.station.tracks import ASKED, GONE, HERE
from tagclip.runtime.station.web import EVERY_ROLE, Answer, Ask, Refusal, Route
from tagclip.runtime.vector_scan import Where, parse_near
from tagclip.runtime.views import VIEWS
from tagclip.runtime.when import parse_when

MAX_TOP = 500
DEFAULT_TOP = 50
_VIEWS = (*VIEWS, "unknown")


def search(ask: Ask) -> Answer:
    """The best, by a text or by how somebody looked; that it was asked is in the audit log."""
    given, station = ask.query, ask.station
    text, like = given.get("text"), given.get("like")
    if (text is None) == (like is None):
        raise Refusal(400, "give text, or like (the id of a hit or a track), not both")
    top, where = _top(ask), _where(given)
    own: str | None = None
    if text is not None:
        try:
            vector = np.asarray(station.encoder.vector(check_query(text)), np.float32)
        except BackgroundError as error:
            raise Refusal(400, str(error)) from error
        encoder_id = station.encoder.encoder_id
    else:
        found_like = station.tracks.vector(like or "")
        if found_like is None:
            raise Refusal(404, "there is no such hit or track, or its track has not come yet")
        own, encoder_id, vector = found_like
    _log(ask, "search", **given)
    found = station.vectors.search(vector, encoder_id, where, top + (own is not None))
    ranked = [(track_id, score) for track_id, score in found.tracks if track_id != own][:top]
    tracks = station.tracks.shown(track_id for track_id, _ in ranked)
    # Whoever was deleted meanwhile is left out.
    kept = [(tracks[track_id], score) for track_id, score in ranked if track_id in tracks]
    return Answer(
        {
            "query": text,
            "like": like,
            "encoder_id": encoder_id,
            "compared": found.compared,
            "left_out": found.left_out,
            "results": [
                {"rank": rank, "score": round(score, 4), **track}
                for rank, (track, score) in enumerate(kept, 1)
            ],
        }
    )


def near_query(ask: Ask) -> Answer:
    """Candidates of a standing query, with the threshold in force; in the audit log, too."""
    station = ask.station
    query = station.queries.get(ask.path["id"])
    if query is None:
        raise Refusal(404, "there is no such query")
    top = _top(ask)
    try:
        yardstick = station.encoder.yardstick()
        told = query["vector"] if query["encoder_id"] == station.encoder.encoder_id else None
        vector = np.asarray(told or station.encoder.vector(query["text"]), np.float32)
    except BackgroundError as error:
        raise Refusal(409, str(error)) from error
    _log(ask, "query.candidates", query=query["id"], text=query["text"])
    found = candidates(query, vector, yardstick, station.tracks, station.vectors, top)
    shown = {key: query[key] for key in ("id", "text", "view", "alarms_per_hour", "alarms_per_1000")}
    return Answer({"query": shown, **found})


def picture(ask: Ask) -> Answer:
    """The JPEG, or 202: the device is asked for it and sends it when it is in reach."""
    state, jpeg = ask.station.tracks.picture(ask.path["id"], ask.by)
    if state == HERE:
        return Answer(data=jpeg, kind="image/jpeg")
    if state == ASKED:
        return Answer(
            {"picture": ASKED, "text": "asked for; the device sends it with its next exchange"}, 202
        )
    if state == GONE:
        raise Refusal(410, "the device keeps this picture no longer")
    raise Refusal(404, "there is no such track")


def _log(ask: Ask, action: str, **facts: Any) -> None:
    with ask.station.database.write() as connection:
        record(connection, ask.by, action, **facts)


def _top(ask: Ask) -> int:
    return whole(ask.query.get("top", str(DEFAULT_TOP)), "top", MAX_TOP)


def _where(given: dict[str, str]) -> Where:
    """Raises: QueryError, Refusal."""
    now_s = time.time()
    if given.get("view", _VIEWS[0]) not in _VIEWS:
        raise Refusal(400, f"view: expected one of {', '.join(_VIEWS)}")

    def one(name: str) -> frozenset[str] | None:
        return frozenset({given[name]}) if name in given else None

    return Where(
        after_s=parse_when(given["after"], now_s) if "after" in given else None,
        before_s=parse_when(given["before"], now_s) if "before" in given else None,
        cameras=one("camera"),
        near=parse_near(given["near"], "near") if "near" in given else None,
        devices=one("device"),
        views=one("view"),
    )


_TOP = {"top": f"at most {MAX_TOP}, default {DEFAULT_TOP}"}

ROUTES = (
    Route(
        "GET",
        "/api/v1/search",
        EVERY_ROLE,
        search,
        "Everybody whom a device stored, by a description or by how somebody looked, the best first.",
        query={
            "text": "a description",
            "like": "instead of it: id of a hit or a track, for those who look alike",
            **_TOP,
            "device": "name of a device",
            "camera": "name of a camera",
            "view": "one of " + ", ".join(_VIEWS),
            "after": "seen then or later: 2026-11-27T10:30Z, or how long ago: 15m, 2h, 3d",
            "before": "seen then or earlier",
            "near": "LATITUDE,LONGITUDE,METRES",
        },
    ),
    Route(
        "GET",
        "/api/v1/queries/{id}/candidates",
        EVERY_ROLE,
        near_query,
        "Who comes nearest to a standing query: what their score is worth, and the threshold in force.",
        query=_TOP,
    ),
    Route(
        "GET",
        "/api/v1/tracks/{id}/picture",
        EVERY_ROLE,
        picture,
        "The picture of a track, JPEG; 202 while it is still on the device, which is asked for it.",
    ),
)

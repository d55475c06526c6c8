"""What crosses the link: every field is checked, a signature covers every byte, and nothing else than SyncError comes.

How many mutations are tried is set by TAGCLIP_MUTATIONS.
"""

from __future__ import annotations

import base64
import copy
import gzip
import json
import os
import random
import tracemalloc
import uuid
from typing import Any

import numpy as np
import pytest

from tagclip.runtime.errors import SyncError
from tagclip.runtime.hit import Hit
from tagclip.runtime.ids import uuid7
from tagclip.runtime.store_track import Place, StoredTrack
from tagclip.runtime.sync_fields import gunzip
from tagclip.runtime.sync_messages import (
    HIT,
    MAX_BATCH_BYTES,
    MAX_JPEG_BYTES,
    PICTURE,
    STATUS,
    THUMBNAIL,
    TRACK,
    Answer,
    Message,
    answer_of,
    batch_of,
    id_of,
    message_of,
    pack_vector,
    query_set_of,
    sign,
    verify,
)
from tagclip.runtime.sync_track import ToldTrack, told

MUTATIONS = int(os.environ.get("TAGCLIP_MUTATIONS", "3000"))
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256))


def hit() -> Hit:
    return Hit(
        *(
            uuid7(),
            2,
            "q1",
            "a man in a réd jacket 赤",
            uuid7(),
            "cam",
            "aerial",
            "e" * 64,
            0.31,
            1e-4,
            0.5,
            0.2,
        ),
        *(1.7e9, 1.7e9 + 4, 1.7e9 + 2, 17, (1.0, 2.0, 30.0, 60.0), (640, 480)),
    )


def track() -> ToldTrack:
    vector = np.array([0.6, -0.8, 0.001], np.float32)
    stored = StoredTrack(
        uuid7(), "cam", "aerial", 1.7e9, 1.7e9 + 4, 1.7e9 + 2, 17, (1.0, 2.0, 30.0, 60.0), "e" * 64, vector,
        Place(47.1234567, 8.0, 2.5),
    )  # fmt: skip
    return told(stored, (640, 480), 3)


def messages() -> dict[str, dict[str, Any]]:
    picture = {"hit_id": str(uuid7()), "revision": 2, "jpeg": base64.b64encode(JPEG).decode()}
    bodies = {
        HIT: hit().to_json(),
        PICTURE: picture,
        STATUS: {"depth": 3, "oldest_s": None, "name": ""},
        TRACK: track().to_json(),
        THUMBNAIL: {"track_id": str(uuid7()), "jpeg": picture["jpeg"]},
    }
    return {
        kind: Message(str(uuid7()), "drone-1", kind, 1.7e9, str(uuid7()), 1 + n, body).to_json()
        for n, (kind, body) in enumerate(bodies.items())
    }


def document() -> dict[str, Any]:
    query = {
        "id": "q7",
        "text": "a woman with a black backpack",
        "view": "auto",
        "vector": [0.6, -0.8, 0.0],
        "encoder_id": "e" * 64,
        "alarms_per_hour": None,
        "alarms_per_1000": 2.0,
        "reason": "",
        "expires_s": None,
    }
    other = {**query, "id": "q8", "vector": None, "encoder_id": None, "expires_s": 1.8e9}
    return {"revision": 5, "issued_s": 1.7e9, "expires_s": 1.75e9, "queries": [query, other]}


@pytest.fixture(scope="module")
def keys() -> Any:
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    from tagclip.runtime.keys import PrivateKey

    return [PrivateKey(ed25519.Ed25519PrivateKey.generate()) for _ in range(2)]


@pytest.mark.parametrize("kind", [HIT, PICTURE, STATUS, TRACK, THUMBNAIL])
def test_a_message_comes_back_as_it_went(kind: str) -> None:
    row = messages()[kind]
    again = message_of(json.loads(json.dumps(row)))
    assert again.to_json() == row
    if kind == HIT:
        assert again.hit().query == "a man in a réd jacket 赤"
    if kind in (PICTURE, THUMBNAIL):
        assert again.jpeg() == JPEG
    if kind == TRACK:  # 0.6 : -0.8 in eight bits, of which the larger is 127
        assert np.frombuffer(again.track().codes, np.int8).tolist() == [95, -127, 0]
        assert again.track().place == Place(47.1234567, 8.0, 2.5)


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        (TRACK, "vector", ""),
        (TRACK, "vector", "AAAA"),  # no direction
        (TRACK, "vector", base64.b64encode(b"x" * 4097).decode()),
        (TRACK, "track_id", "x"),
        (TRACK, "view", "above"),
        (TRACK, "end_s", 1.0),
        (TRACK, "crops", 0),
        (TRACK, "place", {"latitude_deg": 91.0, "longitude_deg": 0.0, "error_m": 0.0}),
        (TRACK, "more", 1),
        (THUMBNAIL, "track_id", None),
        (THUMBNAIL, "jpeg", base64.b64encode(b"GIF89a").decode()),
        (THUMBNAIL, "more", 1),
    ],
)
def test_a_track_is_checked_and_its_fault_named(kind: str, key: str, value: object) -> None:
    row = messages()[kind]
    with pytest.raises(SyncError, match=f"message.body.{key}"):
        message_of({**row, "body": {**row["body"], key: value}})
    for name in row["body"]:
        with pytest.raises(SyncError, match=f"message.body.{name}"):
            message_of({**row, "body": {k: v for k, v in row["body"].items() if k != name}})


def test_a_thumbnail_that_is_kept_no_longer_says_so() -> None:
    row = messages()[THUMBNAIL]
    assert message_of({**row, "body": {**row["body"], "jpeg": None}}).jpeg() == b""


def test_an_answer_names_wanted_pictures_only_when_there_are_some() -> None:
    names = tuple(str(uuid7()) for _ in range(16))
    for wanted in (names, names[:1], ()):
        answer = Answer(("a",), {}, 5, wanted)
        row = answer.to_json()
        assert answer_of(json.dumps(row).encode()) == answer
        # Without any it is what devices of before know.
        assert set(row) == {"acks", "rejected", "queries_revision"} | ({"wanted"} if wanted else set())
    for bad in ([*names, str(uuid7())], ["x"], [5], "x", None, {}):
        with pytest.raises(SyncError, match="answer.wanted"):
            answer_of(json.dumps({**Answer((), {}, 5).to_json(), "wanted": bad}).encode())


WRONG = [
    ("id", "abc"),
    ("id", str(uuid.UUID(int=5))),
    ("id", 7),
    ("device", "a/b"),
    ("device", "#"),
    ("device", "a" * 64),
    ("device", "\ud800"),
    ("kind", "order"),
    ("made_s", -1),
    ("made_s", float("nan")),
    ("made_s", True),
    ("made_s", "now"),
    ("boot_id", None),
    ("seq", 0),
    ("seq", 1.5),
    ("seq", 1 << 60),
    ("body", []),
]


@pytest.mark.parametrize("kind", [HIT, PICTURE, STATUS, TRACK, THUMBNAIL])
def test_every_field_is_needed_and_checked_and_named(kind: str) -> None:
    row = messages()[kind]
    for key in row:
        with pytest.raises(SyncError, match=f"message.{key}"):
            message_of({k: v for k, v in row.items() if k != key})
    for key, value in WRONG:
        with pytest.raises(SyncError, match=f"message.{key}"):
            message_of({**row, key: value})
    with pytest.raises(SyncError, match="message.more"):
        message_of({**row, "more": 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hit_id", "x"),
        ("revision", 0),
        ("jpeg", "!!!!"),
        ("jpeg", base64.b64encode(b"GIF89a" * 9).decode()),
        ("jpeg", base64.b64encode(JPEG).decode() + "\n"),
        ("jpeg", base64.b64encode(JPEG + bytes(MAX_JPEG_BYTES)).decode()),
        ("jpeg", base64.b64encode(JPEG[:4]).decode().replace("4A==", "4B==")),  # unused bits set
        ("more", 1),
    ],
)
def test_a_picture_is_a_jpeg_of_bounded_size_in_one_spelling(key: str, value: object) -> None:
    row = messages()[PICTURE]
    row["body"][key] = value
    with pytest.raises(SyncError, match=f"body.{key}"):
        message_of(row)


def test_the_body_of_a_hit_and_a_status_is_checked() -> None:
    row = messages()[HIT]
    row["body"]["p_value"] = 2
    with pytest.raises(SyncError, match="p_value"):
        message_of(row)
    for fact in (
        {"a": [1]},
        {"a": "x" * 201},
        {"": 1},
        {"a": "\x1b[2J"},
        {str(n): n for n in range(65)},
        {"a": 1 << 60},
    ):
        with pytest.raises(SyncError, match="message.body"):
            message_of({**messages()[STATUS], "body": fact})


def batch(rows: list[Any], **more: Any) -> bytes:
    return json.dumps({"device": "drone-1", "messages": rows, "status": {}, **more}).encode()


def test_a_batch_is_bounded_and_its_messages_are_left_to_be_rejected_one_by_one() -> None:
    good = messages()[HIT]
    read = batch_of(batch([good, {"id": "x", "kind": 1}, 7]))
    assert (read.device, read.rows[0], len(read.rows)) == ("drone-1", good, 3)
    assert [id_of(row) for row in read.rows] == [good["id"], "x", None]
    for data in (
        batch([good] * 65),
        batch([], device="a b"),
        batch([], status=[]),
        batch([], more=1),
        batch([]).replace(b'"status"', b'"device"'),
        b"[]",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b"[" * 100_000,
        b" " * (MAX_BATCH_BYTES + 1),
    ):
        with pytest.raises(SyncError):
            batch_of(data)


def test_an_answer_is_bounded_and_a_strange_reason_does_no_harm() -> None:
    answer = Answer(("a", "b"), {"c": "wrong"}, 4)
    assert answer_of(json.dumps(answer.to_json()).encode()) == answer
    strange = {**answer.to_json(), "rejected": [{"id": "c", "reason": "\x1b[2J\n" + "x" * 5000}]}
    reason = answer_of(json.dumps(strange).encode()).rejected["c"]
    assert len(reason) <= 1000 and reason.isprintable()
    for wrong in (
        {"acks": ["a"] * 65},
        {"acks": [1]},
        {"acks": [""]},
        {"queries_revision": -1},
        {"rejected": [1]},
    ):
        with pytest.raises(SyncError):
            answer_of(json.dumps({**answer.to_json(), **wrong}).encode())


def test_a_query_set_is_signed_as_the_protocol_says(keys: Any) -> None:
    signed = sign(document(), keys[0])
    # Built here from RFC 8032 keys, numpy's float16 and Python's JSON alone.
    unsigned = document()
    unsigned["queries"][0]["vector"] = base64.b64encode(np.array([0.6, -0.8, 0.0], "<f2").tobytes()).decode()
    text = json.dumps(unsigned, sort_keys=True, indent=2) + "\n"
    assert keys[0].public.verifies(
        base64.b64decode(signed["signature"]), b"tagclip query set 1\n" + text.encode()
    )
    assert {key: value for key, value in signed.items() if key != "signature"} == unsigned
    queries = verify(json.loads(json.dumps(signed)), keys[0].public)
    assert (queries.revision, [query.id for query in queries.queries]) == (5, ["q7", "q8"])
    assert queries.queries[0].vector == tuple(np.array([0.6, -0.8, 0.0], np.float16).astype(float))
    assert (queries.queries[1].vector, queries.queries[1].expires_s) == (None, 1.8e9)


def test_whatever_is_changed_after_signing_is_refused(keys: Any) -> None:
    signed = sign(document(), keys[0])
    with pytest.raises(SyncError, match="did not sign"):
        verify(signed, keys[1].public)
    changes: list[tuple[list[Any], Any]] = [
        (["revision"], 6),
        (["issued_s"], 1.0),
        (["expires_s"], 1.9e9),
        (["queries"], []),
        (["queries", 0, "text"], "a man"),
        (["queries", 0, "vector"], pack_vector([1.0, 0.0, 0.0])),
        (["queries", 1, "expires_s"], None),
        (["more"], 1),
    ]
    for path, value in changes:
        changed = copy.deepcopy(signed)
        place = changed
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        with pytest.raises(SyncError, match="did not sign"):
            verify(changed, keys[0].public)
    for signature in (None, "", "AAAA", signed["signature"][:-4], 5):
        with pytest.raises(SyncError, match="signature"):
            verify({**signed, "signature": signature}, keys[0].public)


@pytest.mark.parametrize(
    "change",
    [
        {"vector": None},
        {"encoder_id": None},
        {"vector": base64.b64encode(np.array([np.nan], "<f2").tobytes()).decode()},
        {"vector": base64.b64encode(np.array([0, 0], "<f2").tobytes()).decode()},
        {"vector": "AAA="[:-1]},
        {"alarms_per_hour": 1.0},
        {"alarms_per_1000": 0},
        {"view": "side"},
        {"id": "q8"},
        {"text": ""},
        {"text": "\x1b[2J"},
        {"reason": None},
        {"expires_s": "never"},
    ],
)
def test_a_query_breaks_its_form(change: dict[str, Any]) -> None:
    wrong = document()
    wrong["queries"][0]["vector"] = pack_vector(wrong["queries"][0]["vector"])
    assert query_set_of(wrong).revision == 5
    wrong["queries"][0].update(change)
    with pytest.raises(SyncError, match="queries"):
        query_set_of(wrong)


def test_vectors_that_16_bits_cannot_say_are_refused() -> None:
    for vector in ([1e6], ["a"], [None], 5):
        with pytest.raises(SyncError, match="vector"):
            pack_vector(vector)


def test_unpacking_is_bounded() -> None:
    data = os.urandom(5000)
    assert gunzip(gzip.compress(data), 5000) == data
    bomb = gzip.compress(bytes(200 << 20), 9)
    tracemalloc.start()
    with pytest.raises(SyncError, match="more"):
        gunzip(bomb, 1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    for wrong in (
        b"",
        b"abc",
        gzip.compress(data)[:-5],
        gzip.compress(data) + b"x",
        gzip.compress(data)[:20],
    ):
        with pytest.raises(SyncError):
            gunzip(wrong, 5000)


def test_mutations_give_sync_errors_or_good_values(keys: Any) -> None:
    rng = random.Random(3)
    seeds = [
        *(json.dumps(row).encode() for row in messages().values()),
        batch(list(messages().values())),
        json.dumps(sign(document(), keys[0])).encode(),
        json.dumps(Answer(("a",), {"b": "c"}, 2).to_json()).encode(),
    ]
    refused = 0
    for _ in range(MUTATIONS):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 2, 5))):
            at = rng.randrange(len(data))
            cut = rng.choice((b"", b"9" * 400, b'"', b"null", b"-1", b"{}", bytes([rng.randrange(256)])))
            data[at : at + rng.randrange(1, 8)] = cut
        for read in (
            batch_of,
            answer_of,
            lambda d: message_of(json.loads(d)),
            lambda d: query_set_of(json.loads(d)),
        ):
            try:
                read(bytes(data))
            except SyncError:
                refused += 1
            except ValueError:  # of json.loads above; ours are SyncError
                pass
    assert refused > MUTATIONS

"""Health and metrics, over real HTTP on loopback, also with clients that mean no good."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tagclip.runtime import health_server
from tagclip.runtime.errors import ConfigError
from tagclip.runtime.health import BLIND_S, BUCKETS_S, STAGES, Health
from tagclip.runtime.health_server import MAX_CONNECTIONS, HealthServer, parse_listen
from tagclip.runtime.machine import MachineState

LONG_S = 300.0  # only a broken test waits for it

WARM = MachineState(
    temperature_c={"cpu-thermal": 52.5},
    power_w={"VDD_IN": 5.25},
    gpu_load=0.5,
    power_mode="15W",
    throttled=(),
    resident_bytes=500_000_000,
    available_bytes=None,
    total_bytes=None,
)


class Clock:
    """Time that passes when the test says so."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock, tmp_path: Path) -> Health:
    return Health(
        camera="rtsp://admin:s3cret@cam/1",
        detector="motion",
        provider="cpu",
        encoder_id="abc",
        store=tmp_path / "north.db",
        clock=clock,
    )


@pytest.fixture
def server(health: Health, monkeypatch: pytest.MonkeyPatch) -> Iterator[HealthServer]:
    monkeypatch.setattr(health_server, "KEEP_S", 0.0)
    with HealthServer(health, ("127.0.0.1", 0)) as running:
        yield running


def get(server: HealthServer, path: str) -> tuple[int, str, bytes]:
    """Status, content type and body, as a monitor asks."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=LONG_S)) as client:
        client.request("GET", path)
        with client.getresponse() as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Name and labels -> value, as Prometheus's own parser reads them; counters and histograms are whole."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[Any, float] = {}
    for family in text_string_to_metric_families(text.decode()):
        assert family.documentation and family.type != "unknown", family.name
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def test_health_says_what_is(server: HealthServer, health: Health, clock: Clock, tmp_path: Path) -> None:
    status, kind, body = get(server, "/health")
    assert (status, kind) == (503, "application/json")
    assert json.loads(body)["status"] == "starting"

    health.running()
    for _ in range(3):
        health.seen()
    health.counts.dropped, health.counts.people, health.counts.store_dropped = 2, 5, 1
    health.machine = WARM
    (tmp_path / "north.db").write_bytes(b"x" * 100)
    (tmp_path / "north.db-wal").write_bytes(b"x" * 11)
    clock.now_s += 1.5
    status, _, body = get(server, "/health?verbose=1")
    assert status == 200
    told = json.loads(body)
    assert told.pop("version")
    assert told == {
        "status": "running",
        "reasons": [],
        "encoder_id": "abc",
        "detector": "motion",
        "provider": "cpu",
        "uptime_s": 1.5,
        "camera": {
            "name": "rtsp://***@cam/1",
            "connected": True,
            "last_frame_age_s": 1.5,
            "frames": 3,
            "dropped": 2,
            "reconnects": 0,
            "stalls": 0,
            "failures": 0,
            "resized": 0,
        },
        "store": {"people": 5, "bytes": 111, "dropped": 1, "lost": 0},
        "machine": {**vars(WARM), "throttled": []},
    }
    health.stopping()
    assert get(server, "/health")[0] == 503


def test_degraded_works_on_and_blind_does_not(server: HealthServer, health: Health, clock: Clock) -> None:
    health.running()
    health.seen()
    assert health.degrade("store", "slow disk of rtsp://a:pw@b") and not health.degrade("store", "slow disk")
    status, _, body = get(server, "/health")
    assert (status, json.loads(body)["status"], json.loads(body)["reasons"]) == (
        200,
        "degraded",
        ["store: slow disk"],
    )
    assert health.recover("store") and not health.recover("store")
    health.connected = False
    clock.now_s += 2
    status, _, body = get(server, "/health")
    assert (status, json.loads(body)["reasons"]) == (200, ["camera: not connected, no frame for 2 s"])
    clock.now_s += BLIND_S
    assert get(server, "/health")[0] == 503
    health.seen()
    status, _, body = get(server, "/health")
    assert (status, json.loads(body)["status"]) == (200, "running")


def test_metrics_are_what_prometheus_reads(server: HealthServer, health: Health, clock: Clock) -> None:
    health.running()
    health.seen()
    health.machine = WARM
    counts = health.counts
    counts.dropped, counts.reconnects, counts.detections, counts.queue = 7, 2, 40, 3
    for time_s in (0.0005, 0.001, 0.03, 99.0):
        health.times["detect"].add(time_s)
    health.degrade("throttled", "hot")
    clock.now_s += 0.25
    status, kind, body = get(server, "/metrics")
    assert status == 200 and kind.startswith("text/plain; version=")
    found = samples(body)

    def value(name: str, **labels: str) -> float:
        return found[f"tagclip_{name}", tuple(sorted(labels.items()))]

    assert (value("frames_total"), value("frames_dropped_total"), value("detections_total")) == (1, 7, 40)
    assert (value("camera_reconnects_total"), value("queue_frames")) == (2, 3)
    assert value("last_frame_age_seconds") == 0.25
    assert value("status", status="degraded") == 1 and value("status", status="running") == 0
    assert value("degraded", cause="throttled") == 1
    assert value("temperature_celsius", zone="cpu-thermal") == 52.5
    assert value("power_watts", rail="VDD_IN") == 5.25
    assert (value("gpu_load_ratio"), value("memory_resident_bytes"), value("throttled")) == (0.5, 5e8, 0)
    assert ("tagclip_memory_available_bytes", ()) not in found  # unknown is not 0
    build = [dict(labels) for name, labels in found if name == "tagclip_build_info"]
    assert [(one["encoder_id"], one["detector"], one["provider"]) for one in build] == [
        ("abc", "motion", "cpu")
    ]
    assert b"s3cret" not in body
    # A histogram: cumulative, up to +Inf, which is the count.
    for stage in STAGES:
        limits = [dict(labels)["le"] for name, labels in found if name == "tagclip_stage_seconds_bucket"]
        assert {float(limit) for limit in limits} == {*BUCKETS_S, math.inf}
        buckets = [value("stage_seconds_bucket", stage=stage, le=str(le)) for le in BUCKETS_S]
        assert buckets == sorted(buckets)
    assert value("stage_seconds_bucket", stage="detect", le="0.001") == 2  # the limit belongs to its bucket
    assert value("stage_seconds_bucket", stage="detect", le="0.05") == 3
    assert value("stage_seconds_bucket", stage="detect", le="+Inf") == 4
    assert value("stage_seconds_count", stage="detect") == 4
    assert value("stage_seconds_sum", stage="detect") == pytest.approx(99.0315)


def test_a_label_may_hold_anything(health: Health) -> None:
    health.machine = MachineState({'zo"ne\\\n': 1.0}, {}, None, None, None, None, None, None)
    found = samples(health.metrics())
    assert found["tagclip_temperature_celsius", (("zone", 'zo"ne\\\n'),)] == 1.0
    assert ("tagclip_throttled", ()) not in found


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /health HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        (b"HEAD /health HTTP/1.1\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /health/../../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"GET /\xff\xfe HTTP/1.1\r\n\r\n", 404),
        (b"GET /health\n\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),  # TLS
        (b"GET /health HTTP/1.1\r\nX: " + b"x" * 9000, 431),
        (b"GET /" + b"x" * 50_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET /metrics HTTP/1.0\n\n", 200),
    ],
)
def test_only_get_of_two_paths(server: HealthServer, request_: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=LONG_S) as client:
        client.sendall(request_)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == status
        assert answer.read() and (status != 405 or answer.headers["Allow"] == "GET")


def test_slow_clients_do_not_keep_others_out(
    server: HealthServer, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times as many as there is room for say nothing, or one byte; the oldest of them give way."""
    monkeypatch.setattr(health_server, "PACE_S", 0.002)
    health.running()
    health.seen()
    before = len(os.listdir("/proc/self/fd"))
    with contextlib.ExitStack() as stack:
        for k in range(3 * MAX_CONNECTIONS):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=LONG_S))
            if k % 2:
                client.sendall(b"G")
        assert get(server, "/health")[0] == 200
        assert len(os.listdir("/proc/self/fd")) <= before + 3 * MAX_CONNECTIONS + MAX_CONNECTIONS + 1


def test_a_slow_client_is_given_up(server: HealthServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then does not prolong it."""
    monkeypatch.setattr(health_server, "DEADLINE_S", 0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=LONG_S) as client:
        end_s = time.monotonic() + LONG_S
        with contextlib.suppress(OSError):
            while time.monotonic() < end_s:
                client.sendall(b"x")
                client.settimeout(0.05)
                with contextlib.suppress(socket.timeout):
                    if not client.recv(1):
                        break
        assert time.monotonic() < end_s


def test_a_client_that_does_not_read_is_given_up(health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks, and takes nothing of an answer that is larger than the kernel's buffers."""
    monkeypatch.setattr(health_server, "DEADLINE_S", 0.3)
    monkeypatch.setattr(Health, "metrics", lambda self: b"x" * 50_000_000)
    with HealthServer(health, ("127.0.0.1", 0)) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=LONG_S) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            end_s = time.monotonic() + LONG_S
            while not server._connections and time.monotonic() < end_s:
                time.sleep(0.01)
            while server._connections and time.monotonic() < end_s:
                time.sleep(0.01)
            assert not server._connections


def test_a_flood_leaves_the_loop_alone(server: HealthServer, health: Health) -> None:
    """Two threads ask as fast as they can. What they get is paced, costs little, and leaves no descriptors."""
    clock = time.pthread_getcpuclockid(server._thread.ident)
    before = len(os.listdir("/proc/self/fd"))
    answered, over = [0], threading.Event()

    def ask() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                get(server, "/metrics")
                answered[0] += 1

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    began_s, used_s = time.monotonic(), time.clock_gettime(clock)
    while time.monotonic() < began_s + (1.0 if answered[0] else LONG_S):
        time.sleep(0.1)
    assert time.clock_gettime(clock) - used_s < (time.monotonic() - began_s) / 2
    over.set()
    for thread in threads:
        thread.join()
    assert 0 < answered[0] <= (time.monotonic() - began_s) / health_server.PACE_S + 1
    end_s = time.monotonic() + LONG_S
    while server._connections and time.monotonic() < end_s:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_it_ends_with_clients_hanging_on(health: Health) -> None:
    threads = threading.active_count()
    with contextlib.ExitStack() as stack:
        with HealthServer(health, ("127.0.0.1", 0)) as server:
            port = server.port
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=LONG_S))
            client.sendall(b"GET /hea")
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(10) == b""
    assert threading.active_count() == threads
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_a_port_in_use_is_refused(server: HealthServer, health: Health) -> None:
    with pytest.raises(
        ConfigError, match=rf"cannot listen on 127.0.0.1 port {server.port}: Address already in use"
    ):
        with HealthServer(health, ("127.0.0.1", server.port)):
            pass


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9911", ("127.0.0.1", 9911)),
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("localhost:9911", ("127.0.0.1", 9911)),
        ("[::1]:9911", ("::1", 9911)),
        ("127.3.2.1:1", ("127.3.2.1", 1)),
    ],
)
def test_addresses_of_this_machine(text: str, address: tuple[str, int]) -> None:
    assert parse_listen(text) == address


@pytest.mark.parametrize("text", ["0.0.0.0:9911", "[::]:9911", "10.0.0.5:9911"])
def test_other_addresses_have_to_be_meant(text: str) -> None:
    with pytest.raises(ConfigError, match="add --expose if that is meant"):
        parse_listen(text)
    assert parse_listen(text, exposed=True)[1] == 9911


@pytest.mark.parametrize(
    "text", ["", ":9911", "9911:", "example.org:80", "127.0.0.1", "127.0.0.1:65536", "1:2:3"]
)
def test_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a port, or an IP address and a port"):
        parse_listen(text)


def test_the_loop_pays_next_to_nothing(health: Health) -> None:
    """What a frame costs, against the 100 ms that it may take: under a tenth of a percent, on any machine."""
    times = health.times["detect"]
    began_s = time.thread_time()
    for _ in range(10_000):
        health.seen()
        health.counts.detections += 3
        times.add(0.012)
    assert (time.thread_time() - began_s) / 10_000 < 1e-4

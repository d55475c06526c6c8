"""Logs: one object a line, no credentials, no flood."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tagclip.runtime.errors import SourceError
from tagclip.runtime.logs import MAX_CHARS, Repetition, logging_to, mask

log = logging.getLogger("tagclip.test")


def lines(stream: io.StringIO) -> list[dict]:
    """The lines as objects; `time` apart from its form, which is checked here."""
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    for line in found:
        assert line.pop("time")[-1] == "Z"
    return found


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://admin:s3cret@10.0.0.5:554/live", "rtsp://***@10.0.0.5:554/live"),
        ("open rtsp://u:p@ss/w:rd@cam/1 failed", "open rtsp://***@cam/1 failed"),  # @ and / in the password
        ("rtsp://cam/1 and mail to a@b", "rtsp://cam/1 and mail to a@b"),
        (str(Path("rtsp://admin:s3cret@cam/1")), "rtsp:/***@cam/1"),
        ("rtsps+tcp://onlyuser@cam", "rtsps+tcp://***@cam"),
        ("rtsp://cam/user=admin_password=tlJwpbo6_channel=1", "rtsp://cam/user=admin_password=***"),
        ("rtspsrc user-id=a user-pw='two words' ! decode", "rtspsrc user-id=a user-pw=*** ! decode"),
        ("?user=a&password=xyz&channel=2", "?user=a&password=***&channel=2"),
        ("Authorization: Basic YWRtaW46cHc= then", "Authorization: *** then"),
        ('{"token": "abc", "n": 1}', '{"token": ***, "n": 1}'),
        ("API_KEY=1f2e PASSWD: hunter2", "API_KEY=*** PASSWD: ***"),
        ("12 tokens of 80, compass north", "12 tokens of 80, compass north"),
    ],
)
def test_credentials_are_masked(text: str, shown: str) -> None:
    assert mask(text) == shown


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_credential_reaches_a_line(form: str) -> None:
    """Not in the message, nor in what goes with it, nor in a traceback."""
    stream = io.StringIO()
    with logging_to(stream, form):
        log.warning("no %s", "rtsp://a:SECRET@cam", extra={"source": Path("/x?password=SECRET")})
        log.warning("nested", extra={"facts": {"urls": ["rtsp://a:SECRET@cam"], "rtsp://b:SECRET@c": 1}})
        try:
            raise ValueError("rtsp://a:SECRET@cam\npassword=SECRET")
        except ValueError:
            log.exception("failed")
    assert "SECRET" not in stream.getvalue()
    assert stream.getvalue().count("rtsp://***@cam") >= 3


def test_json_is_one_object_a_line_and_utc() -> None:
    stream = io.StringIO()
    with logging_to(stream):  # no terminal
        extra = {"people": np.int64(3), "place": (np.float32(1.5), None), "nan": float("nan"), "yes": True}
        log.info("kept %d\nsecond line", 3, extra=extra)
        log.debug("not said")
        log.error("x" * 20_000, extra={"level": "faked", "odd": {1}})
    first, second = lines(stream)
    assert first == {
        "level": "info",
        "logger": "tagclip.test",
        "message": "kept 3\nsecond line",
        "people": 3,
        "place": [1.5, None],
        "nan": None,
        "yes": True,
    }
    assert (second["level"], len(second["message"]), second["odd"]) == ("error", MAX_CHARS, "{1}")


def test_a_hostile_message_costs_little() -> None:
    """Texts of a million characters on which the patterns could wander for long."""
    stream = io.StringIO()
    began_s = time.thread_time()
    with logging_to(stream, "json"):
        for text in ("a" * 1_000_000, "@" + "ab:/" * 250_000, "password" * 120_000, "pwd=" * 250_000):
            log.warning("%s", text)
    assert time.thread_time() - began_s < 5
    assert all(len(line) < 2 * MAX_CHARS for line in stream.getvalue().splitlines())


def test_time_is_utc_whatever_the_zone() -> None:
    code = (
        "import logging, sys\nfrom tagclip.runtime.logs import logging_to\n"
        "with logging_to(sys.stderr, form=sys.argv[1]):\n"
        "    record = dict(msg='hello', created=1795775400.25, levelno=30, levelname='WARNING')\n"
        "    logging.getLogger().handle(logging.makeLogRecord(record))\n"
    )
    env = {**os.environ, "TZ": "America/New_York"}
    for form, expected in (
        ("text", "2026-11-27T10:30:00Z warning hello\n"),
        (
            "json",
            '{"time": "2026-11-27T10:30:00.250Z", "level": "warning", "logger": null, "message": "hello"}\n',
        ),
    ):
        ran = subprocess.run([sys.executable, "-c", code, form], env=env, capture_output=True, text=True)
        assert (ran.stderr, ran.returncode) == (expected, 0)


def test_text_cannot_forge_a_line() -> None:
    stream = io.StringIO()
    with logging_to(stream, "text"):
        log.warning("camera says %s", "x\n2026-11-27T10:30:00Z info all is well\x1b[2J", extra={"age_s": 2})
    (line,) = stream.getvalue().splitlines()
    assert "\x1b" not in line and line.endswith("(age_s=2)")


def test_repetition_is_left_out_and_counted() -> None:
    now_s = [0.0]
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(Repetition(each=2, altogether=100, window_s=60, clock=lambda: now_s[0]))
    handler.setFormatter(logging.Formatter("%(message)s|%(left_out)d"))
    logger = logging.Logger("flood")
    logger.addHandler(handler)
    for second in range(120):  # a camera that reconnects every second, for two minutes
        now_s[0] = float(second)
        logger.warning(f"camera lost, try {second}")  # digits do not make it another message
    logger.warning("disk full")
    now_s[0] = 120.0
    logger.warning("camera lost, try %d", 120)
    assert stream.getvalue().splitlines() == [
        "camera lost, try 0|0",
        "camera lost, try 1|0",
        "camera lost, try 60|58",
        "camera lost, try 61|0",
        "disk full|0",
        "camera lost, try 120|0",  # another template: its own kind
    ]


def test_many_kinds_are_bounded_too() -> None:
    stream = io.StringIO()
    repetition = Repetition(each=5, altogether=50, clock=lambda: 0.0)
    handler = logging.StreamHandler(stream)
    handler.addFilter(repetition)
    logger = logging.Logger("flood")
    logger.addHandler(handler)
    for number in range(2000):
        logger.warning("garbage " + "ab"[number % 2] * (number // 2))
    assert len(stream.getvalue().splitlines()) == 50
    assert len(repetition._seen) <= Repetition.KINDS


def test_a_named_failure_becomes_a_line_and_exit_1() -> None:
    stream = io.StringIO()
    with pytest.raises(SystemExit) as stopped, logging_to(stream, "json"):
        raise SourceError("rtsp://a:pw@cam: no answer; is it on?")
    assert stopped.value.code == 1
    assert lines(stream) == [
        {
            "level": "error",
            "logger": "tagclip.runtime.logs",
            "message": "rtsp://***@cam: no answer; is it on?",
            "kind": "SourceError",
        }
    ]
    with pytest.raises(SourceError), logging_to(io.StringIO(), "text"):
        raise SourceError("said by the command line")


def test_a_thread_that_fails_is_logged() -> None:
    stream = io.StringIO()
    with logging_to(stream, "json"):
        thread = threading.Thread(target=lambda: 1 / 0, name="health")
        thread.start()
        thread.join()
    (line,) = lines(stream)
    assert line["message"] == "the thread health failed"
    assert line["error"].endswith("ZeroDivisionError: division by zero")


def test_what_was_set_before_holds_again() -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers), threading.excepthook)
    with logging_to(io.StringIO(), level="debug"):
        assert root.level == logging.DEBUG
    assert (root.level, list(root.handlers), threading.excepthook) == before


def test_journal_gets_the_priority(tmp_path: Path) -> None:
    """As systemd starts a service: JOURNAL_STREAM names the device and inode of stderr."""
    code = (
        "import logging, sys\nfrom tagclip.runtime.logs import logging_to\n"
        "with logging_to(sys.stderr):\n    logging.warning('hot')\n    logging.info('fine')\n"
    )
    with (tmp_path / "journal").open("w") as journal:
        status = os.fstat(journal.fileno())
        for stream, marks in ((f"{status.st_dev}:{status.st_ino}", ["<4>{", "<6>{"]), ("1:1", ["{", "{"])):
            journal.truncate(0)
            journal.seek(0)
            env = {**os.environ, "JOURNAL_STREAM": stream}
            subprocess.run([sys.executable, "-c", code], env=env, stderr=journal, check=True)
            said = (tmp_path / "journal").read_text().splitlines()
            assert [line.partition('"')[0] for line in said] == marks

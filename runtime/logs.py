"""What a device says while it works: one JSON object a line for machines, one line of text for people.

Times are UTC. Credentials never reach a line, and what repeats itself is left out and counted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import numbers
import os
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any, TextIO

from tagclip.runtime.errors import TagclipError, one_line

LEVELS = ("debug", "info", "warning", "error")
FORMS = ("auto", "json", "text")
MAX_CHARS = 8000  # of one text; journald cuts lines at 48 KiB

_HIDDEN = "***"
# Up to the last @: a password may hold any sign, also a slash. Rather hide a host than show a password.
# One slash where a Path has been made of the URL.
_USER_OF_URL = re.compile(r"((?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]+:/{1,2})\S*@")
_SECRET = re.compile(
    r"((?:pass(?:word|wd|phrase)?|pwd|user-pw|secret|token|api[-_]?key|authorization)[\"']?\s*[=:]\s*)"
    r"(?:\"[^\"]*\"|'[^']*'|(?:(?:basic|bearer|digest)\s+)?[^\s&;,\"']+)",
    re.IGNORECASE,
)
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "left_out"}


def mask(text: str) -> str:
    """The text with the user of URLs, passwords, tokens and keys replaced by ***."""
    return _SECRET.sub(rf"\1{_HIDDEN}", _USER_OF_URL.sub(rf"\1{_HIDDEN}@", text))


def plain(value: Any) -> Any:
    """The value as JSON can say it, at any depth: texts masked and cut, NaN and infinities null, the rest as text."""
    if isinstance(value, dict):
        return {mask(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, numbers.Real):  # NumPy's too
        if isinstance(value, numbers.Integral):
            return int(value)
        return float(value) if math.isfinite(value) else None
    return mask(str(value)[: 2 * MAX_CHARS])[:MAX_CHARS]


class JsonLines(logging.Formatter):
    """`time`, `level`, `logger`, `message`, then what the call gave as `extra`, `left_out` and `error`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record on one line, ASCII."""
        line = {
            "time": _utc(record.created, "milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": plain(record.getMessage()),
        }
        extras = {key: plain(value) for key, value in vars(record).items() if key not in _OWN}
        line = {**line, **{key: value for key, value in extras.items() if key not in line}}
        if getattr(record, "left_out", 0):
            line["left_out"] = record.left_out  # type: ignore[attr-defined]
        if record.exc_info:
            line["error"] = plain(self.formatException(record.exc_info))
        return json.dumps(line)


class TextLines(logging.Formatter):
    """`2026-11-27T10:30:00Z warning message (key=value ..)`, then the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text for a person."""
        notes = [f"{key}={value}" for key, value in vars(record).items() if key not in _OWN]
        if getattr(record, "left_out", 0):
            notes.append(f"{record.left_out} like it left out")  # type: ignore[attr-defined]
        text = record.getMessage() + (f" ({', '.join(notes)})" if notes else "")
        text = text[: 2 * MAX_CHARS]
        text = (
            f"{_utc(record.created, 'seconds')} {record.levelname.lower()} {one_line(mask(text))[:MAX_CHARS]}"
        )
        if record.exc_info:
            trace = mask(self.formatException(record.exc_info))
            text += "\n" + "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in trace)
        return text


class Repetition(logging.Filter):
    """Lets a few records of a kind pass in every window; the next that passes says how many did not.

    A kind is a level, a logger and a message without its digits, so that "reconnect 17" is like "reconnect 18".

    Args:
        each, altogether: how many records of one kind, and of all, pass in a window.
        window_s: length of a window.
        clock: seconds that only go forward.
    """

    KINDS = 256  # that are remembered

    def __init__(
        self,
        each: int = 5,
        altogether: int = 300,
        window_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._each, self._altogether, self._window_s, self._clock = each, altogether, window_s, clock
        self._seen: OrderedDict[object, list[float]] = OrderedDict()  # start of the window, passed, left out
        self._all = [clock(), 0.0, 0.0]
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record passes; sets its `left_out`."""
        kind = (record.levelno, record.name, re.sub(r"\d+", "#", str(record.msg)))
        now_s = self._clock()
        with self._lock:
            own = self._seen.setdefault(kind, [now_s, 0.0, 0.0])
            self._seen.move_to_end(kind)
            if len(self._seen) > self.KINDS:
                self._seen.popitem(last=False)
            for count in (own, self._all):
                if now_s - count[0] >= self._window_s:
                    count[:2] = now_s, 0.0
            if own[1] >= self._each or self._all[1] >= self._altogether:
                own[2] += 1
                return False
            own[1] += 1
            self._all[1] += 1
            record.left_out = int(own[2])
            own[2] = 0.0
            return True


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # takes no type before Python 3.11
    """Lines with journald's priority in front where stderr leads to the journal, which takes it off again."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return f"<{_PRIORITIES.get(record.levelno, 5)}>{line}" if to_journal(self.stream) else line


@contextlib.contextmanager
def logging_to(stream: TextIO, form: str = "auto", level: str = "info") -> Iterator[None]:
    """Log to `stream` while this lasts; what was set before holds again afterwards.

    In the JSON form a failure that has a name is logged too, and the process exits with 1, so that no line is plain
    text. Failures in threads are logged in both forms.

    Args:
        form: "json", "text", or "auto": text on a terminal, else JSON.
        level: the least that is said, one of LEVELS.
    """
    as_json = form == "json" or (form == "auto" and not stream.isatty())
    handler = _Handler(stream)
    handler.setFormatter(JsonLines() if as_json else TextLines())
    handler.addFilter(Repetition())
    root, hook = logging.getLogger(), threading.excepthook
    before = root.level
    root.addHandler(handler)
    root.setLevel(level.upper())
    threading.excepthook = _log_thread
    try:
        yield
    except TagclipError as error:
        if not as_json:
            raise
        logging.getLogger(__name__).error("%s", error, extra={"kind": type(error).__name__})
        sys.exit(1)
    finally:
        threading.excepthook = hook
        root.setLevel(before)
        root.removeHandler(handler)
        handler.close()


def to_journal(stream: TextIO) -> bool:
    """Whether what is written to `stream` goes to systemd's journal."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _log_thread(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_type is SystemExit or failed.exc_value is None:
        return
    name = failed.thread.name if failed.thread else "gone"
    logging.getLogger(__name__).critical("the thread %s failed", name, exc_info=failed.exc_value)


def _utc(time_s: float, precision: str) -> str:
    return datetime.fromtimestamp(time_s, timezone.utc).isoformat(timespec=precision)[:-6] + "Z"

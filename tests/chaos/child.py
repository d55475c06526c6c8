"""A process that tests kill, stop and start again, and what it said before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

TESTS = Path(__file__).parent.parent
START_S = 120.0  # on a machine that does a lot else


class Child:
    """A process of ours that runs; `lines` are the whole lines of its stdout.

    Args:
        command: begins with what Python is to run: ["-m", "chaos.device", ...] or ["script.py", ...].
        ready: what one of its lines holds once it is ready; it is waited for.
        within: the command that it is run by, `nsenter` for one.
        log: where its stderr goes, appended.
    """

    def __init__(
        self, command: list[object], ready: str, within: tuple[str, ...] = (), log: Path | None = None
    ) -> None:
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._over = False
        self._stderr = (log or Path(os.devnull)).open("ab")
        paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [*within, sys.executable, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self.wait(ready):
            status = self.process.poll()
            self.kill()
            told = log.read_text(errors="replace")[-2000:] if log else ""
            raise RuntimeError(f"{command} ended ({status}) or took too long: {self.lines[-5:]}, {told}")

    def wait(self, text: str, timeout_s: float = START_S) -> bool:
        """Until a line holds `text`; False when none does in time, or before the process ends."""
        end_s, seen = time.monotonic() + timeout_s, 0
        with self._news:
            while True:
                if any(text in line for line in self.lines[seen:]):
                    return True
                seen, left_s = len(self.lines), end_s - time.monotonic()
                if self._over or left_s <= 0:
                    return False
                self._news.wait(left_s)

    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        """No thread of it runs on, nor does any return from the kernel: as when its power fails."""
        self.process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), "it ended before it was stopped"

    def kill(self) -> list[str]:
        """SIGKILL; all that it said."""
        return self._end(signal.SIGKILL)

    def end(self) -> list[str]:
        """SIGTERM, and SIGKILL if that takes long; all that it said."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> list[str]:
        self.process.send_signal(number)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        assert self.process.stdout
        self.process.stdout.close()
        self._stderr.close()
        return self.lines

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.endswith("\n"):  # half a line is no promise
                with self._news:
                    self.lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()

"""Jobs in processes of their own, which end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from tagclip.runtime.errors import OutputError

J = TypeVar("J")
R = TypeVar("R")


def each(
    function: Callable[[J], R], jobs: Iterable[J], workers: int, setup: Callable[[str], None], device: str
) -> Iterator[R]:
    """Results of `function`, in the order in which they are ready.

    Args:
        function, setup: of a module's top level, so that they can be named in another process.
        workers: processes; 1 does the jobs in this one.
        setup: called with `device` in each process, before its first job.

    Raises:
        OutputError: a process was ended from outside. Whatever a job raises is raised here.
    """
    jobs = list(jobs)
    if workers == 1 or len(jobs) <= 1:
        setup(device)
        yield from map(function, jobs)
        return
    # One thread a process, or the linear algebra of all processes fights for the same cores; it is read at import.
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)), get_context("spawn"), initializer=_begin, initargs=(setup, device)
    )
    try:
        for future in as_completed([pool.submit(function, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool as error:
        raise OutputError(
            "a worker process was ended from outside; if memory ran out, take fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(setup: Callable[[str], None], device: str) -> None:
    # Ctrl-C goes to all processes of the terminal: without a word here, the one message is the parent's.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    setup(device)


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers, and they would wait for jobs for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)

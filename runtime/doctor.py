"""What this machine can run, and why not: the checks of `tagclip doctor`, those of software here.

Libraries are imported in processes of their own: one that was built for another processor ends its process, not the
doctor. Nothing that is asked may take longer than a few seconds.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagclip.runtime.errors import one_line

OK, WARNING, PROBLEM = "ok", "warning", "problem"
COMMAND_S = 5.0
IMPORT_S = 30.0  # a library's first import on a small device reads hundreds of megabytes
SELF_TEST_S = 180.0


@dataclass(frozen=True)
class Check:
    """One row.

    Attributes:
        name: what was looked at.
        state: OK, WARNING or PROBLEM.
        found: what is there.
        advice: the way out; empty where none is needed.
    """

    name: str
    state: str
    found: str
    advice: str = ""


def examine(
    bundle: Path | None = None, store: Path | None = None, engine: str = "cpu", root: Path = Path("/")
) -> Iterator[Check]:
    """All checks, each as soon as it is made.

    Args:
        bundle: to be tested; None for the one that ships.
        store: where people would be kept; None looks at the working folder.
        engine: what the encoders would run on, one of `engines.ENGINES`, or "auto".
        root: where /sys, /proc, /etc and /dev begin.
    """
    from tagclip.runtime import doctor_machine as machine

    jetson = machine.l4t_release(root) is not None
    groups: list[tuple[str, Callable[[], list[Check]]]] = [
        ("python", check_python),
        ("onnxruntime", check_onnxruntime),
        ("bundle", lambda: check_bundle(bundle, engine)),
        ("gpu", lambda: check_gpu(jetson)),
        ("tensorrt", lambda: check_tensorrt(jetson)),
        ("opencv", check_opencv),
        ("jetson", lambda: machine.check_jetson(root)),
        ("heat", lambda: machine.check_heat(root)),
        ("memory", lambda: machine.check_memory(root)),
        ("store", lambda: machine.check_store(store, root)),
        ("clock", machine.check_clock),
        ("cameras", lambda: machine.check_cameras(root)),
    ]
    for name, check in groups:
        try:
            yield from check()
        except Exception as error:  # one that we did not foresee must not hide the others
            text = one_line(f"{type(error).__name__}: {error}")
            yield Check(name, PROBLEM, f"the check itself failed: {text}", "report this line")


def check_python() -> list[Check]:
    """Python's version and ours."""
    found = f"{platform.python_version()} on {platform.machine()}, {platform.system()} {platform.release()}"
    old = sys.version_info < (3, 10)
    return [
        Check("python", PROBLEM if old else OK, found, "install Python 3.10 or later" if old else ""),
        Check("tagclip", OK, importlib.metadata.version("tagclip")),
    ]


def check_onnxruntime() -> list[Check]:
    """That it loads, and what it can run on."""
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)]
    told = ask_python(
        "import json, onnxruntime as ort\n"
        "print(json.dumps({'version': ort.__version__, 'providers': ort.get_available_providers()}))"
    )
    if isinstance(told, str):
        return [Check("onnxruntime", PROBLEM, told, "pip install 'tagclip[cpu]'")]
    found = f"{told['version']}: {', '.join(told['providers'])}"
    if len(both) > 1:
        advice = "two packages share one folder: pip uninstall both, then install the one that you need"
        return [Check("onnxruntime", WARNING, f"{found}; {' and '.join(both)} are installed", advice)]
    return [Check("onnxruntime", OK, found)]


def check_bundle(bundle: Path | None, engine: str) -> list[Check]:
    """That it opens, and that this machine computes what it was made with: a row for each tower."""
    told = ask_python(
        "import json, sys\nfrom pathlib import Path\n"
        "from tagclip.runtime.bundle import open_bundle\n"
        "from tagclip.runtime.engines import Engines\n"
        "from tagclip.runtime.errors import TagclipError\n"
        "told = {}\n"
        "try:\n"
        "    opened = open_bundle(Path(sys.argv[1]) if sys.argv[1] else None)\n"
        "    told = {'name': opened.manifest.name, 'id': opened.encoder_id, 'towers': {}}\n"
        "    engines = Engines(opened, sys.argv[2])\n"
        "    told['engine'] = engines.name\n"
        "    for tower in opened.manifest.towers:\n        told['towers'][tower] = engines.check(tower)\n"
        "except TagclipError as error:\n    told['error'] = str(error)\n"
        "print(json.dumps(told))",
        *("" if bundle is None else str(bundle.resolve()), engine),
        timeout_s=SELF_TEST_S,
    )
    if isinstance(told, str):
        return [Check("bundle", PROBLEM, told, "see the rows above; `tagclip bundle verify` shows more")]
    rows = [Check("bundle", OK, f"{told['name']}, encoder {told['id'][:12]}")] if "id" in told else []
    for tower, cosine in told.get("towers", {}).items():
        rows.append(Check(f"self-test {tower}", OK, f"cosine {cosine:.6f} on {told['engine']}"))
    if "error" in told:
        found, _, advice = one_line(told["error"]).partition("; ")
        rows.append(Check("self-test" if rows else "bundle", PROBLEM, found, advice))
    return rows


def check_gpu(jetson: bool) -> list[Check]:
    """The GPU that CUDA offers; only a Jetson has to have one."""
    told = ask_python(
        "import json\nfrom tagclip.runtime.errors import TagclipError\nfrom tagclip.runtime.gpu import find_gpu\n"
        "try:\n    print(json.dumps(vars(find_gpu())))\n"
        "except TagclipError as error:\n    print(json.dumps({'error': str(error)}))"
    )
    if isinstance(told, str):
        return [Check("gpu", WARNING, told, "install cuda-bindings again, see docs/engines.md")]
    if "error" not in told:
        return [Check("gpu", OK, f"{told['name']} ({told['capability']})")]
    found, _, advice = one_line(told["error"]).partition("; ")
    return [Check("gpu", WARNING if jetson else OK, found, advice if jetson else "")]


def check_tensorrt(jetson: bool) -> list[Check]:
    """TensorRT's version; only a Jetson needs it."""
    told = ask_python(
        "import json\nfrom tagclip.runtime.errors import TagclipError\nfrom tagclip.runtime.trt import load_binding\n"
        "try:\n    print(json.dumps({'version': load_binding('tensorrt').version}))\n"
        "except TagclipError as error:\n    print(json.dumps({'error': str(error)}))"
    )
    if isinstance(told, str):
        return [Check("tensorrt", WARNING, told, "install it again, see docs/engines.md")]
    if "error" not in told:
        return [Check("tensorrt", OK, told["version"])]
    found, _, advice = one_line(told["error"]).partition("; ")
    absent = found.endswith("is not installed")
    return [
        Check(
            "tensorrt",
            OK if absent and not jetson else WARNING,
            found,
            "" if absent and not jetson else advice,
        )
    ]


def check_opencv() -> list[Check]:
    """How this OpenCV reads video: files and RTSP by FFmpeg, USB cameras by V4L2. GStreamer runs beside it."""
    told = ask_python(
        "import cv2, json\nhas = cv2.videoio_registry.hasBackend\n"
        "found = {'FFmpeg': has(cv2.CAP_FFMPEG), 'V4L2': has(cv2.CAP_V4L2)}\n"
        "print(json.dumps({'version': cv2.__version__, 'has': found}))"
    )
    if isinstance(told, str):
        return [Check("opencv", PROBLEM, told, "pip install --force-reinstall opencv-python-headless")]
    has = told["has"]
    state, advice = OK, ""
    if not has["FFmpeg"]:
        state, advice = PROBLEM, "no file and no RTSP camera can be read; pip install opencv-python-headless"
    elif not has["V4L2"] and sys.platform == "linux":
        state, advice = WARNING, "no USB camera can be read; pip install opencv-python-headless"
    found = ", ".join(f"{name} {'yes' if yes else 'no'}" for name, yes in has.items())
    return [Check("opencv", state, f"{told['version']}: {found}", advice)]


def ask_python(code: str, *arguments: str, timeout_s: float | None = None) -> dict[str, Any] | str:
    """The JSON object that `code` prints last in a process of its own, or in one line why there is none."""
    timeout_s = IMPORT_S if timeout_s is None else timeout_s
    # From the root folder: a file of this folder that has a library's name must not stand in for it.
    status, output, errors = run([sys.executable, "-c", code, *arguments], timeout_s, cwd="/")
    if status == 0 and output.strip():
        told: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
        return told
    return _why(status, errors, timeout_s)


def run(
    command: list[str], timeout_s: float = COMMAND_S, cwd: str | None = None
) -> tuple[int | None, str, str]:
    """Status, stdout and stderr of a command; status None: it took too long, 127: it is not there."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            cwd=cwd,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return None, "", ""
    except OSError as error:
        return 127, "", str(error.strerror or error)
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def _why(status: int | None, errors: str, timeout_s: float) -> str:
    if status is None:
        return f"no answer in {timeout_s:g} s"
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"ends its process with {name}: built for another processor, or damaged"
    last = (errors.strip().splitlines() or [f"exit status {status}"])[-1]
    return one_line(re.sub(r"^([\w.]+\.)?(ModuleNotFoundError|ImportError|OSError): ", "", last))


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True

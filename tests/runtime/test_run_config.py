"""The file of `tagclip run --config`: the command's own options, checked with line numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from tagclip.runtime import cli
from tagclip.runtime.logs import LEVELS
from tagclip.runtime.run_config import MAX_BYTES, show_config, use_config

Run = Callable[..., tuple[int, str, str]]


def _use_config(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    if path is not None:
        use_config(context, path)


@click.command()
@click.argument("source")
@click.option("--store", "path", type=click.Path(path_type=Path), required=True)
@click.option("--view", type=click.Choice(["auto", "aerial", "ground"]), default="auto")
@click.option("--start")
@click.option("--boxes", type=click.Path(exists=True, path_type=Path))
@click.option("--altitude", type=float)
@click.option("--tiles", type=click.IntRange(1, 9), default=1)
@click.option("--max-gb", type=click.FloatRange(min=0.001), default=4.0)
@click.option("--query", "queries", multiple=True)
@click.option("--size", nargs=2, type=int)
@click.option("--expose", is_flag=True)
@click.option("--log-level", type=click.Choice(LEVELS), default="info")
@click.option(
    "--config", type=click.Path(path_type=Path), is_eager=True, expose_value=False, callback=_use_config
)
@click.option("--show-config", "show", is_flag=True)
@click.pass_context
def device(context: click.Context, show: bool, **values: Any) -> None:
    """Shaped as `tagclip run`: an argument, required and optional options, all kinds of values."""
    click.echo(show_config(context) if show else repr(values))


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command with a file of this text: (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def tell(text: str | bytes, *arguments: str) -> tuple[int, str, str]:
        Path("device.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(SystemExit) as stopped:
            cli.run(device, "device", ["--config", "device.yaml", *arguments])
        return stopped.value.code, *capsys.readouterr()  # type: ignore[return-value]

    return tell


FILE = """\
# the mast at the north gate
source: rtsp://admin:s3cret@10.0.0.5/live
store: north.db
view: aerial
start: 10:30        # YAML would make 630 of it
altitude: 1e2
max_gb: 0.5
query: [a man in a red jacket, "yes, 007"]
size: [768, 576]
expose: yes
"""


def test_command_line_before_file_before_default(tell: Run) -> None:
    status, out, err = tell(FILE, "--view", "ground", "--tiles=2", "other.mp4")
    assert (status, err) == (0, "")
    assert eval(out, {"PosixPath": Path}) == {
        "source": "other.mp4",
        "path": Path("north.db"),
        "view": "ground",
        "start": "10:30",
        "boxes": None,
        "altitude": 100.0,
        "tiles": 2,
        "max_gb": 0.5,
        "queries": ("a man in a red jacket", "yes, 007"),
        "size": (768, 576),
        "expose": True,
        "log_level": "info",
    }


def test_show_says_where_each_value_came_from(tell: Run) -> None:
    status, out, _ = tell(FILE, "--view", "ground", "--show-config")
    rows = [tuple(part.strip() for part in line.rpartition("  # ")[::2]) for line in out.splitlines()]
    assert status == 0
    assert rows == [
        ('source: "rtsp://***@10.0.0.5/live"', "device.yaml:2"),
        ("store: north.db", "device.yaml:3"),
        ("view: ground", "command line"),
        ("start: 10:30", "device.yaml:5"),
        ("# boxes:", "not given"),
        ("altitude: 100", "device.yaml:6"),
        ("tiles: 1", "default"),
        ("max-gb: 0.5", "device.yaml:7"),
        ('query: ["a man in a red jacket", "yes, 007"]', "device.yaml:8"),
        ("size: [768, 576]", "device.yaml:9"),
        ("expose: true", "device.yaml:10"),
        ("log-level: info", "default"),
    ]


def test_what_is_shown_is_a_file_that_says_the_same(tell: Run) -> None:
    text = FILE.replace("rtsp://admin:s3cret@10.0.0.5/live", '"a \\"b\\" # c: d"')
    _, shown, _ = tell(text, "--show-config")
    _, first, _ = tell(text)
    _, second, err = tell(shown)
    assert (first, err) == (second, "")
    assert tell("source: a\nstore: b\n", "--show-config")[1].count("# not given") == 5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("vieww: aerial", "device.yaml:3: unknown key 'vieww'; did you mean view?"),
        ("Max-GB: 1", "device.yaml:3: unknown key 'Max-GB'; did you mean max-gb?"),
        ("zzz: 1", "device.yaml:3: unknown key 'zzz'; known keys: source, store, view, start"),
        ("config: other.yaml", "device.yaml:3: unknown key 'config'"),
        ("path: other.db", "device.yaml:3: unknown key 'path'"),  # the option is --store
        ("<<: {view: aerial}", "device.yaml:3: unknown key '<<'"),
        ("view: nadir", "device.yaml:3: view: expected one of auto, aerial, ground, found 'nadir'"),
        ("altitude: high", "device.yaml:3: altitude: expected a number, found 'high'"),
        ("altitude: true", "device.yaml:3: altitude: expected a number, found 'true'"),
        ("tiles: 2.5", "device.yaml:3: tiles: expected a whole number from 1 to 9, found '2.5'"),
        ("tiles: 12", "device.yaml:3: tiles: expected a whole number from 1 to 9, found '12'"),
        ("max-gb: 0", "device.yaml:3: max-gb: expected a number from 0.001, found '0'"),
        ("expose: maybe", "device.yaml:3: expose: expected true or false, found 'maybe'"),
        ("size: [1, x]", "device.yaml:3: size: expected a whole number, found ['1', 'x']"),
        ("tiles: [1, 2]", "device.yaml:3: tiles: expected one value, found a list"),
        ("view: {is: aerial}", "device.yaml:3: view: expected one value, found a section"),
        ("query: [[a]]", "device.yaml:3: query: expected one value, found a list"),
        ("view:", "device.yaml:3: view: expected one value, found nothing; give one, or take the line out"),
        ("view: ~", "device.yaml:3: view: expected one value, found nothing"),
        ("store: again.db", "device.yaml:3: store stands in line 2 already"),
        ("max-gb: 1\nmax_gb: 2", "device.yaml:4: max_gb stands in line 3 already"),
        ("view: 'open", "device.yaml:3: not readable as YAML"),
        ("view: a: b", "device.yaml:3: not readable as YAML"),
        ("view: aerial\n  tiles: 2", "device.yaml:4: not readable as YAML"),
        ("boxes: absent.csv", "device.yaml:3: boxes: Path 'absent.csv' does not exist."),
        ("[a]: b", "device.yaml:3: expected a key such as `days`, found sequence"),
        ("altitude: rtsp://admin:s3cret@cam", "found 'rtsp://***@cam"),
    ],
)
def test_refused_with_the_line(tell: Run, line: str, message: str) -> None:
    status, out, err = tell(f"source: cam\nstore: a.db\n{line}\n")
    assert (status, out) == (1, "")
    assert message in err and len(err.splitlines()) == 1
    assert "s3cret" not in err


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"- a\n- b\n", "device.yaml:1: expected lines of `key: value`"),
        (b"\xff\xfe\x00", "device.yaml: not readable as YAML"),
        (b"view: \x07\n", "device.yaml: not readable as YAML"),
        (b"a: 1\n---\nb: 2\n", "device.yaml:2: not readable as YAML"),
        (b"view: " + b"[" * 1500, "device.yaml: not readable as YAML: nested too deep"),
        (b"# " + b"x" * MAX_BYTES, f"device.yaml: more than {MAX_BYTES} bytes"),
    ],
)
def test_no_config_at_all(tell: Run, data: bytes, message: str) -> None:
    status, _, err = tell(data)
    assert status == 1
    assert err.startswith(f"error: {message}")


def test_no_object_is_made(tell: Run, tmp_path: Path) -> None:
    status, _, _ = tell("source: !!python/object/apply:os.system ['touch made']\nstore: a.db\n")
    assert status == 1
    assert not (tmp_path / "made").exists()


def test_absent_and_empty_files(tell: Run, tmp_path: Path) -> None:
    status, _, err = tell("")
    assert status == 2 and "Missing argument 'SOURCE'" in err
    status, _, err = tell("store: a.db\n", "--config", "absent.yaml")
    assert (status, err) == (
        1,
        "error: cannot read absent.yaml: No such file or directory; name a YAML file\n",
    )
    assert tell("source: cam\n")[0] == 2  # --store is still required

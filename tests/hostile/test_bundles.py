"""Damaged, oversized, newer and malicious bundles: each has its named error, none opens."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tagclip.runtime import bundle as bundle_module
from tagclip.runtime.bundle import Bundle, open_bundle
from tagclip.runtime.errors import (
    BundleError,
    BundleIntegrityError,
    BundleManifestError,
    BundleMissingError,
    BundleVersionError,
)

FILES = [
    "bundle.json",
    "image-aerial.onnx",
    "image-ground.onnx",
    "text.onnx",
    "tokenizer.json",
    "report.json",
    "probe.npz",
    "SHA256SUMS",
]


@pytest.fixture
def copy(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "b"))


@pytest.fixture(autouse=True)
def nothing_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a bundle must not touch the libraries that parse graphs and tokenizers."""
    import sys

    for library in ("onnxruntime", "tokenizers"):
        monkeypatch.setitem(sys.modules, library, None)


def seal(folder: Path) -> None:
    """Make SHA256SUMS right again, as an attacker would."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    """Change bundle.json and seal the bundle again."""
    value = json.loads((folder / "bundle.json").read_text())
    change(value)
    (folder / "bundle.json").write_text(json.dumps(value))
    seal(folder)


def test_every_file_is_attacked(tiny_bundle: Bundle) -> None:
    assert sorted(path.name for path in tiny_bundle.path.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0, 0.5, -1])
def test_truncations(copy: Path, name: str, keep: float) -> None:
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[: int(len(data) * keep) if keep >= 0 else -1])
    with pytest.raises((BundleIntegrityError, BundleManifestError)):
        open_bundle(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    for place in random.Random(name).sample(range(len(data) * 8), 24):
        data[place // 8] ^= 1 << place % 8
        (copy / name).write_bytes(data)
        with pytest.raises((BundleIntegrityError, BundleManifestError, BundleVersionError)):
            open_bundle(copy)
        data[place // 8] ^= 1 << place % 8


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleMissingError if name == "bundle.json" else BundleIntegrityError):
        open_bundle(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_symbolic_link(copy: Path, tmp_path: Path, name: str) -> None:
    """Even to the very same bytes: what it points to is not the bundle's."""
    (copy / name).rename(tmp_path / "outside")
    (copy / name).symlink_to(tmp_path / "outside")
    with pytest.raises(BundleIntegrityError):
        open_bundle(copy)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_or_folder_in_place_of_a_file(copy: Path, name: str, make: Callable[[Path], None]) -> None:
    """A pipe must not make the device wait for ever."""
    (copy / name).unlink()
    make(copy / name)
    with pytest.raises(BundleIntegrityError):
        open_bundle(copy)


@pytest.mark.parametrize("name", ["extra.bin", ".hidden", "Text.onnx", "a folder/file", "engines"])
def test_an_unlisted_file(copy: Path, name: str) -> None:
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_bytes(b"x")
    with pytest.raises(BundleIntegrityError, match="is not listed in SHA256SUMS"):
        open_bundle(copy)


@pytest.mark.parametrize("name", ["engines", "SIGNATURE"])
def test_a_link_where_the_hashes_do_not_reach(copy: Path, tmp_path: Path, name: str) -> None:
    (copy / name).symlink_to(tmp_path)
    with pytest.raises(BundleIntegrityError, match="is a symbolic link"):
        open_bundle(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda sums: sums.replace("\n", "\r\n"),
        lambda sums: sums.upper(),
        lambda sums: sums + "\n",
        lambda sums: sums + sums.splitlines()[-1] + "\n",  # the last line twice
        lambda sums: "".join(sorted(sums.splitlines(keepends=True), reverse=True)),
        lambda sums: "\ufeff" + sums,
        lambda sums: sums + "0" * 64 + "  ../../etc/passwd\n",
        lambda sums: sums + "0" * 64 + "  /etc/passwd\n",
        lambda sums: sums + "0" * 64 + "  z\n",  # listed, not there
        lambda sums: sums * 200,  # larger than it may be
        lambda sums: "\n".join(line for line in sums.split("\n") if "tokenizer" not in line),
        lambda sums: "\n".join(line for line in sums.split("\n") if "bundle.json" not in line),
        lambda sums: "",
    ],
)
def test_sums_in_another_form(copy: Path, change: Callable[[str], str]) -> None:
    (copy / "SHA256SUMS").write_text(change((copy / "SHA256SUMS").read_text()), newline="")
    with pytest.raises(BundleIntegrityError):
        open_bundle(copy)


def test_needed_files_that_nobody_lists(copy: Path) -> None:
    """Deleted from the folder and from the sums: the manifest still needs it."""
    (copy / "text.onnx").unlink()
    seal(copy)
    with pytest.raises(BundleIntegrityError, match="text.onnx is needed but SHA256SUMS does not list it"):
        open_bundle(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b["preprocess"].update(width_px=17),
        lambda b: b["tokenizer"].update(pad_id=1),
        lambda b: b.update(encoder_id="tc1-0123456789abcdef"),
        lambda b: (
            b["towers"]["image-aerial"].update(file="image-ground.onnx"),
            b["towers"]["image-ground"].update(file="image-aerial.onnx"),
        ),
    ],
)
def test_not_the_encoder_it_claims_to_be(copy: Path, change: Callable[[dict], object]) -> None:
    edit(copy, change)
    if "17" in (copy / "bundle.json").read_text():
        edit(
            copy,
            lambda b: [b["towers"][f"image-{v}"]["input"]["shape"].__setitem__(2, 17) for v in b["views"]],
        )
    with pytest.raises(BundleIntegrityError, match="encoder_id is tc1-.*, but these files make tc1-"):
        open_bundle(copy)


def test_another_graph_under_the_old_encoder_id(copy: Path) -> None:
    with open(copy / "text.onnx", "ab") as file:
        file.write(b"\0")
    seal(copy)
    with pytest.raises(BundleIntegrityError, match="encoder_id"):
        open_bundle(copy)


@pytest.mark.parametrize("extra", [{}, {"towers": "something else", "new": 1}])
def test_a_newer_version_is_named_even_if_all_else_differs(copy: Path, extra: dict) -> None:
    edit(copy, lambda b: b.update({"format_version": 2} | extra))
    with pytest.raises(BundleVersionError, match="bundle format 2 is newer than this tagclip, which reads 1"):
        open_bundle(copy)


def leaves(value: object, path: tuple = ()) -> list[tuple]:
    """The path of every field of bundle.json, the free `provenance` apart."""
    if path == ("provenance",) or not isinstance(value, dict):
        return [path]
    return [path, *(leaf for key, item in value.items() for leaf in leaves(item, (*path, key)))]


def test_every_field_missing_or_of_the_wrong_type(copy: Path) -> None:
    original = (copy / "bundle.json").read_text()
    paths = leaves(json.loads(original))[1:]
    assert len(paths) > 50
    for path in paths:
        for wrong in ("absent", None, True, 0.5, -1, "\x1b[2J", "", [], ["x"], {"x": 1}):
            value = json.loads(original)
            parent = value
            for key in path[:-1]:
                parent = parent[key]
            if wrong == "absent":
                del parent[path[-1]]
            elif path == ("provenance",) and isinstance(wrong, dict):
                continue
            else:
                parent[path[-1]] = wrong
            (copy / "bundle.json").write_text(json.dumps(value))
            seal(copy)
            with pytest.raises(BundleManifestError, match=path[-1]):
                open_bundle(copy)


@pytest.mark.parametrize("place", [("towers", "text"), ("tokenizer",)])
@pytest.mark.parametrize(
    "name",
    [
        "../text.onnx",
        "..",
        "/etc/passwd",
        "a/b.onnx",
        "a\\b.onnx",
        "a..onnx",
        ".text.onnx",
        "text.onnx\n",
        "text.onnx\0",
        "téxt.onnx",
        "bundle.json",
        "SHA256SUMS",
        "image-aerial.onnx",  # two towers, one file
        "x" * 120 + ".onnx",
    ],
)
def test_unsafe_file_names(copy: Path, place: tuple[str, ...], name: str) -> None:
    def change(value: dict) -> None:
        for key in place:
            value = value[key]
        value["file"] = (
            name.replace(".onnx", ".json") if place == ("tokenizer",) and "aerial" not in name else name
        )

    edit(copy, change)
    with pytest.raises(BundleManifestError):
        open_bundle(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.update(views=["ground", "aerial"]),
        lambda b: b.update(views=["aerial", "aerial"]),
        lambda b: b.update(views=["aerial"]),  # a tower that no view names
        lambda b: b.update(views=["aerial", "ground", "sky"]),
        lambda b: b["towers"]["text"].update(precision="fp8"),
        lambda b: b["towers"]["text"].update(view="aerial"),
        lambda b: b["towers"]["image-aerial"].update(view="ground"),
        lambda b: b["towers"]["image-aerial"]["input"].update(shape=["N", 3, 32, 16]),
        lambda b: b["towers"]["image-aerial"]["input"].update(shape=["N", 32.0, 16, 3]),
        lambda b: b["towers"]["image-aerial"]["input"].update(dtype="float32"),
        lambda b: b.update(unknown=1),
        lambda b: b.update(encoder_id="tc2-0123456789abcdef"),
        lambda b: b.update(format_version=0),
        lambda b: b.update(embedding_dim=10**30),
    ],
)
def test_fields_that_contradict(copy: Path, change: Callable[[dict], object]) -> None:
    edit(copy, change)
    with pytest.raises(BundleManifestError, match="bundle.json"):
        open_bundle(copy)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe{\0}\0",
        b"\xef\xbb\xbf{}",
        b'{"format_version": NaN}',
        b'{"format_version": 1, "format_version": 1}',
        b'{"format_version": ' + b"9" * 6000 + b"}",
        b'{"a": ' * 20000 + b"1" + b"}" * 20000,
        b'{"name": "' + b"x" * 300_000 + b'"}',
    ],
)
def test_json_that_is_not_a_manifest(copy: Path, data: bytes) -> None:
    (copy / "bundle.json").write_bytes(data)
    seal(copy)
    with pytest.raises(BundleManifestError, match="bundle.json"):
        open_bundle(copy)


def test_a_graph_larger_than_any_is_refused_without_reading_it(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.truncate(copy / "text.onnx", 1 << 40)  # sparse: takes no disk
    with pytest.raises(
        BundleIntegrityError, match=f"{1 << 40} bytes, expected at most {bundle_module.MAX_FILE_BYTES}"
    ):
        open_bundle(copy)


def mutate(data: bytes, seed: random.Random) -> bytes:
    """One random piece of damage: a bit, a byte, a cut, an insertion, a swap, a repetition."""
    at = seed.randrange(len(data))
    length = seed.randint(1, 16)
    return seed.choice(
        [
            lambda: data[:at] + bytes([data[at] ^ 1 << seed.randrange(8)]) + data[at + 1 :],
            lambda: data[:at] + seed.randbytes(1) + data[at + 1 :],
            lambda: data[:at] + data[at + length :],
            lambda: data[:at] + seed.randbytes(length) + data[at:],
            lambda: data[:at],
            lambda: data[at:] + data[:at],
            lambda: data[: at + length] + data[at:],
        ]
    )()


def test_five_hundred_random_mutations_are_all_refused(tiny_bundle: Bundle, copy: Path) -> None:
    seed, tried = random.Random(20), 0
    while tried < 500:
        name = seed.choice(FILES)
        original = (tiny_bundle.path / name).read_bytes()
        damaged = mutate(original, seed)
        if damaged == original:
            continue
        (copy / name).write_bytes(damaged)
        with pytest.raises(BundleError) as error:
            open_bundle(copy)
        assert type(error.value) is not BundleError and str(error.value).isprintable()
        (copy / name).write_bytes(original)
        tried += 1
    assert open_bundle(copy).encoder_id == tiny_bundle.encoder_id  # the copy itself was sound

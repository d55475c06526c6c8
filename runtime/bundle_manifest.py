"""bundle.json as data: what it says, checked field by field. docs/format.md is the specification."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tagclip.runtime.errors import BundleManifestError, BundleVersionError
from tagclip.runtime.fields import Fields
from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.runtime.views import TOWER_VIEWS

FORMAT_VERSION = 1
MANIFEST = "bundle.json"
SUMS = "SHA256SUMS"
SIGNATURE = "SIGNATURE"
ENGINES = "engines"
RESERVED = (MANIFEST, SUMS, SIGNATURE, ENGINES)

TEXT = "text"
PRECISIONS = ("fp32", "fp16", "int8")

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ENCODER_ID = re.compile(r"tc1-[0-9a-f]{16}")


@dataclass(frozen=True)
class TensorSpec:
    """A graph's input or output; a shape entry is a size or the name of a dynamic axis ("N")."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def to_json(self) -> dict[str, Any]:
        """The form that bundle.json holds."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}


@dataclass(frozen=True)
class TowerFacts:
    """What only the maker of a graph knows about it."""

    precision: str  # one of PRECISIONS
    parameters: int


@dataclass(frozen=True)
class Tower:
    """One graph of the bundle."""

    name: str  # "image-aerial", "image-ground", "image-universal" or "text"
    file: str
    view: str | None  # None for text
    input: TensorSpec
    output: TensorSpec
    facts: TowerFacts

    def to_json(self) -> dict[str, Any]:
        """The form that bundle.json holds."""
        kind = {"kind": TEXT} if self.view is None else {"kind": "image", "view": self.view}
        return {
            **kind,
            "file": self.file,
            "input": self.input.to_json(),
            "output": self.output.to_json(),
            "precision": self.facts.precision,
            "parameters": self.facts.parameters,
        }


@dataclass(frozen=True)
class TokenizerSpec:
    """How text becomes the rows of the text graph's input."""

    file: str
    context_length: int
    pad_id: int

    def to_json(self) -> dict[str, Any]:
        """The form that bundle.json holds."""
        return {"file": self.file, "context_length": self.context_length, "pad_id": self.pad_id}


@dataclass(frozen=True)
class Manifest:
    """All of bundle.json, checked."""

    name: str
    encoder_id: str
    embedding_dim: int
    views: tuple[str, ...]
    towers: Mapping[str, Tower]
    preprocess: PreprocessSpec
    tokenizer: TokenizerSpec
    licence: str
    provenance: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The object that bundle.json holds."""
        return {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "encoder_id": self.encoder_id,
            "embedding_dim": self.embedding_dim,
            "views": list(self.views),
            "towers": {name: tower.to_json() for name, tower in self.towers.items()},
            "preprocess": self.preprocess.to_json(),
            "tokenizer": self.tokenizer.to_json(),
            "licence": self.licence,
            "provenance": dict(self.provenance),
        }


def image_tower(view: str) -> str:
    """The name of the image tower of `view`."""
    return f"image-{view}"


def is_plain_name(name: str) -> bool:
    """Whether `name` can only mean a file directly inside the bundle."""
    return _PLAIN_NAME.fullmatch(name) is not None and ".." not in name


def make_tower(
    name: str,
    file: str,
    facts: TowerFacts,
    *,
    view: str | None,
    preprocess: PreprocessSpec,
    context_length: int,
    embedding_dim: int,
) -> Tower:
    """A tower with the input and output that format version 1 prescribes for its kind."""
    if view is None:
        tensor = TensorSpec("tokens", "int64", ("N", context_length))
    else:
        tensor = TensorSpec("crops", "uint8", ("N", preprocess.height_px, preprocess.width_px, 3))
    return Tower(name, file, view, tensor, TensorSpec("embedding", "float32", ("N", embedding_dim)), facts)


def parse_manifest(value: object) -> Manifest:
    """Check the object of bundle.json.

    Raises:
        BundleVersionError: the format is newer than this program.
        BundleManifestError: a field is absent, unknown, of the wrong type, out of range or unsafe.
    """
    fields = Fields(value, MANIFEST)
    # The version first: a newer format may rightly differ in everything that follows.
    version = fields.integer("format_version", low=1, high=2**31)
    if version > FORMAT_VERSION:
        raise BundleVersionError(
            f"bundle format {version} is newer than this tagclip, which reads {FORMAT_VERSION}; "
            "upgrade tagclip"
        )
    encoder_id = fields.text("encoder_id")
    if not _ENCODER_ID.fullmatch(encoder_id):
        fields.refuse("encoder_id", "tc1- and 16 hexadecimal digits")
    views = fields.items("views")
    if not views or views != [view for view in TOWER_VIEWS if view in views]:
        fields.refuse("views", f"one or more of {list(TOWER_VIEWS)}, in this order")
    embedding_dim = fields.integer("embedding_dim", low=1, high=65536)
    preprocess = PreprocessSpec.from_json(fields.free("preprocess"), fields.where("preprocess"))
    tokenizer = _parse_tokenizer(fields.object("tokenizer"))
    manifest = Manifest(
        name=fields.text("name", max_length=100),
        encoder_id=encoder_id,
        embedding_dim=embedding_dim,
        views=tuple(views),
        towers=_parse_towers(fields.object("towers"), tuple(views), preprocess, tokenizer, embedding_dim),
        preprocess=preprocess,
        tokenizer=tokenizer,
        licence=fields.text("licence"),
        provenance=fields.free("provenance"),
    )
    fields.close()
    files = [tokenizer.file, *(tower.file for tower in manifest.towers.values())]
    if len({file.lower() for file in files}) != len(files):
        raise BundleManifestError(f"{MANIFEST}: the same file is named twice among {sorted(files)}")
    return manifest


def _parse_tokenizer(fields: Fields) -> TokenizerSpec:
    tokenizer = TokenizerSpec(
        file=_file(fields, ".json"),
        context_length=fields.integer("context_length", low=1, high=4096),
        pad_id=fields.integer("pad_id", low=0, high=2**31 - 1),
    )
    fields.close()
    return tokenizer


def _parse_towers(
    fields: Fields,
    views: tuple[str, ...],
    preprocess: PreprocessSpec,
    tokenizer: TokenizerSpec,
    embedding_dim: int,
) -> dict[str, Tower]:
    towers = {}
    for view in (*views, None):
        name = TEXT if view is None else image_tower(view)
        tower = fields.object(name)
        tower.text("kind", choices=(TEXT if view is None else "image",))
        if view is not None:
            tower.text("view", choices=(view,))
        facts = TowerFacts(
            tower.text("precision", choices=PRECISIONS), tower.integer("parameters", low=0, high=10**13)
        )
        towers[name] = make_tower(
            name,
            _file(tower, ".onnx"),
            facts,
            view=view,
            preprocess=preprocess,
            context_length=tokenizer.context_length,
            embedding_dim=embedding_dim,
        )
        _expect_tensor(tower.object("input"), towers[name].input)
        _expect_tensor(tower.object("output"), towers[name].output)
        tower.close()
    fields.close()
    return towers


def _expect_tensor(fields: Fields, expected: TensorSpec) -> None:
    fields.text("name", choices=(expected.name,))
    fields.text("dtype", choices=(expected.dtype,))
    shape = fields.items("shape")
    # Compared with the types: JSON's true equals 1 and 128.0 equals 128 in Python.
    if [(type(size), size) for size in shape] != [(type(size), size) for size in expected.shape]:
        fields.refuse("shape", str(list(expected.shape)))
    fields.close()


def _file(fields: Fields, suffix: str) -> str:
    name = fields.text("file")
    if not is_plain_name(name) or not name.endswith(suffix) or name in RESERVED:
        fields.refuse(
            "file", f"a plain file name that ends in {suffix} (letters, digits, dot, dash, underscore)"
        )
    return name

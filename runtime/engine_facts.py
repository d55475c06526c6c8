"""engine.json as data: what an engine was built for, from and with, checked field by field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tagclip.runtime.bundle_manifest import PRECISIONS, TEXT, image_tower
from tagclip.runtime.fields import Fields
from tagclip.runtime.trt import RUNTIMES, TENSORRT_RTX
from tagclip.runtime.views import TOWER_VIEWS

FORMAT_VERSION = 1
NO_GPU = "none"
MIXED = "mixed"  # a bundle whose graphs differ in precision
MAX_ENGINE_BYTES = 2**34
MAX_BATCH = 65536

_CAPABILITY = re.compile(r"sm[1-9][0-9]{1,2}")
_ENCODER_ID = re.compile(r"tc1-[0-9a-f]{16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UTC = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_TOWERS = (*(image_tower(view) for view in TOWER_VIEWS), TEXT)


@dataclass(frozen=True)
class Target:
    """What an engine runs on."""

    runtime: str  # "tensorrt" or "tensorrt-rtx"
    version: str  # of the runtime, such as "10.3.0"
    gpu: str  # its name, or "none" where there is none: TensorRT-RTX builds for absent ones
    capability: str  # of the GPU, such as "sm87"

    @property
    def portable(self) -> bool:
        """Whether an engine runs on every GPU of its capability, not only on the model that built it."""
        return self.runtime == TENSORRT_RTX


@dataclass(frozen=True)
class EngineTower:
    """The engine of one tower."""

    file: str
    sha256: str
    bytes: int
    graph_sha256: str  # of the graph that it was built from
    min_batch: int
    opt_batch: int  # the batch that it is tuned for
    max_batch: int


@dataclass(frozen=True)
class EngineFacts:
    """All of engine.json, checked."""

    target: Target
    precision: str  # "fp32", "fp16" or "int8" if all graphs have it, else "mixed"
    encoder_id: str
    towers: Mapping[str, EngineTower]
    built_utc: str  # ISO 8601, whole seconds, ends in Z
    build_s: float
    self_test: Mapping[str, float] | None  # tower -> the smallest cosine to the probe's vectors
    self_test_reason: str | None  # why it is None

    def to_json(self) -> dict[str, Any]:
        """The object that engine.json holds."""
        facts = {
            "format_version": FORMAT_VERSION,
            **asdict(self.target),
            "precision": self.precision,
            "encoder_id": self.encoder_id,
            "towers": {name: asdict(tower) for name, tower in self.towers.items()},
            "built_utc": self.built_utc,
            "build_s": self.build_s,
            "self_test": None if self.self_test is None else dict(self.self_test),
        }
        return facts if self.self_test_reason is None else facts | {"self_test_reason": self.self_test_reason}


def key(target: Target, precision: str) -> str:
    """The name of an engine's folder: letters, digits, dots and dashes."""
    gpu = target.capability if target.portable else target.gpu
    return "-".join(_slug(part) for part in (target.runtime, target.version, gpu, precision))


def parse_facts(value: object) -> EngineFacts:
    """Check the object of engine.json.

    Raises:
        BundleManifestError: the format is newer than this program, or a field is absent, unknown, of the wrong type
            or out of range.
    """
    fields = Fields(value, "engine.json")
    version = fields.integer("format_version", low=1, high=2**31)
    if version > FORMAT_VERSION:
        fields.refuse(
            "format_version", f"at most {FORMAT_VERSION}, which this tagclip reads (or upgrade tagclip)"
        )
    towers = fields.object("towers")
    tested = fields.object_or_null("self_test")
    facts = EngineFacts(
        target=Target(
            runtime=fields.text("runtime", choices=RUNTIMES),
            version=fields.text("version", max_length=50),
            gpu=fields.text("gpu"),
            capability=_matching(fields, "capability", _CAPABILITY, "sm and the number of a capability"),
        ),
        precision=fields.text("precision", choices=(*PRECISIONS, MIXED)),
        encoder_id=_matching(fields, "encoder_id", _ENCODER_ID, "tc1- and 16 hexadecimal digits"),
        towers={name: _parse_tower(towers, name) for name in _TOWERS if name in towers.keys()},
        built_utc=_matching(fields, "built_utc", _UTC, "a time such as 2026-01-31T12:00:00Z"),
        build_s=fields.number("build_s", low=0, high=1e9),
        self_test=None if tested is None else _parse_tested(tested),
        self_test_reason=None if tested is not None else fields.text("self_test_reason", max_length=1000),
    )
    towers.close()
    fields.close()
    return facts


def _parse_tower(towers: Fields, name: str) -> EngineTower:
    fields = towers.object(name)
    opt = fields.integer("opt_batch", low=1, high=MAX_BATCH)
    tower = EngineTower(
        # Derived, so that no file outside of the folder can be meant.
        file=fields.text("file", choices=(f"{name}.engine",)),
        sha256=_matching(fields, "sha256", _SHA256, "64 hexadecimal digits"),
        bytes=fields.integer("bytes", low=1, high=MAX_ENGINE_BYTES),
        graph_sha256=_matching(fields, "graph_sha256", _SHA256, "64 hexadecimal digits"),
        min_batch=fields.integer("min_batch", low=1, high=opt),
        opt_batch=opt,
        max_batch=fields.integer("max_batch", low=opt, high=MAX_BATCH),
    )
    fields.close()
    return tower


def _parse_tested(fields: Fields) -> dict[str, float]:
    # A cosine of unit vectors in float32 may pass 1 by a rounding.
    tested = {name: fields.number(name, low=-1.001, high=1.001) for name in _TOWERS if name in fields.keys()}
    fields.close()
    return tested


def _matching(fields: Fields, key: str, pattern: re.Pattern[str], expected: str) -> str:
    text = fields.text(key)
    if not pattern.fullmatch(text):
        fields.refuse(key, expected)
    return text


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "unnamed"

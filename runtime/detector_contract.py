"""What a detector's graph takes and gives: a JSON file beside it, strictly checked. docs/detectors.md is its page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tagclip.runtime.errors import BundleManifestError, ConfigError
from tagclip.runtime.fields import Fields, parse_object

FORMAT = "tagclip-detector-1"
TAGCLIP, YOLO, END2END, YOLOX, DETR = "tagclip", "yolo", "yolo-end2end", "yolox", "detr"
FAMILIES = (TAGCLIP, YOLO, END2END, YOLOX, DETR)
WITH_NMS = (TAGCLIP, YOLO, YOLOX)  # the others say each person once by themselves
MULTIPLE_PX = {TAGCLIP: 16, YOLOX: 32}  # of the input's sides

MAX_BYTES = 16 * 1024
MAX_SIDE_PX = 4096
MAX_CLASSES = 10_000
DEFAULT_OVERLAP = 0.25
LEAST_OVERLAP, MOST_OVERLAP = 0.05, 0.5

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class InputSpec:
    """The picture that the graph takes: value = (pixel * scale - mean) / std, by channel.

    Attributes:
        layout: "NCHW" or "NHWC", N is 1.
        dtype: "uint8" or "float32"; uint8 is not normalised.
        mean, std: in the order of `colour`.
        colour: "RGB" or "BGR".
        resize: "letterbox" keeps the shape of the frame and fills up with `pad_value`, "stretch" does not.
        pad_value: 0 to 255, before normalising.
    """

    width_px: int
    height_px: int
    layout: str
    dtype: str
    scale: float
    mean: Triple
    std: Triple
    colour: str
    resize: str
    pad_value: int


@dataclass(frozen=True)
class Contract:
    """A detector's JSON file.

    Attributes:
        person_class: index of the class that is a person.
        min_score: of a person, in (0, 1).
        iou: of two boxes, above which they are one person; None where the graph says each once.
        outputs: names of the graph's outputs for boxes and logits; None where the family fixes them.
        tile_overlap: of neighbouring tiles, as a share of a tile's side; 0 for no tiles.
        cpu_graph: name of a file beside the graph that the CPU runs in its place; None for none.
        licence: SPDX expression of the weights.
    """

    family: str
    person_class: int
    input: InputSpec
    min_score: float
    iou: float | None
    outputs: tuple[str, str] | None
    tile_overlap: float
    cpu_graph: str | None
    licence: str


def contract_path(graph: Path) -> Path:
    """Where the contract of a graph lies: `person.json` beside `person.onnx`."""
    return graph.with_suffix(".json")


def read_contract(graph: Path) -> Contract:
    """The contract beside `graph`.

    Raises:
        ConfigError: it is missing, larger than 16 KiB or no JSON, or a key is absent, unknown, of the wrong type or out
            of range; names the key.
    """
    path = contract_path(graph)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: no contract read ({error.strerror or error}); expected one beside {graph.name} that says what "
            "the graph takes and gives, as in docs/detectors.md"
        ) from error
    if len(data) > MAX_BYTES:
        raise ConfigError(
            f"{path}: more than {MAX_BYTES} bytes, which no contract needs; is it the right file?"
        )
    try:
        return _contract(Fields(parse_object(data, path.name), path.name))
    except BundleManifestError as error:
        said = str(error).removesuffix("; fetch the bundle again")
        raise ConfigError(f"{said}; correct {path} as in docs/detectors.md") from error


def _contract(fields: Fields) -> Contract:
    fields.text("format", choices=(FORMAT,))
    family = fields.text("family", choices=FAMILIES)
    outputs = None
    if family == DETR:
        names = fields.object("outputs")
        outputs = (names.text("boxes"), names.text("logits"))
        names.close()
        if outputs[0] == outputs[1]:
            names.refuse("logits", "another output than that of the boxes")
    contract = Contract(
        family=family,
        person_class=fields.integer("person_class", low=0, high=0 if family == TAGCLIP else MAX_CLASSES - 1),
        input=_input(fields.object("input"), family),
        min_score=fields.number("min_score", low=0.01, high=0.99),
        iou=fields.number("iou", low=0.05, high=0.95) if family in WITH_NMS else None,
        outputs=outputs,
        tile_overlap=_tile_overlap(fields),
        cpu_graph=_cpu_graph(fields),
        licence=fields.text("licence"),
    )
    fields.close()
    return contract


def _tile_overlap(fields: Fields) -> float:
    if "tile_overlap" not in fields.keys():
        return DEFAULT_OVERLAP
    share = fields.number("tile_overlap", low=0.0, high=MOST_OVERLAP)
    if 0.0 < share < LEAST_OVERLAP:
        fields.refuse("tile_overlap", f"0 for no tiles, or {LEAST_OVERLAP} to {MOST_OVERLAP}")
    return share


def _cpu_graph(fields: Fields) -> str | None:
    if "cpu_graph" not in fields.keys():
        return None
    name = fields.text("cpu_graph")
    if not name.endswith(".onnx") or "/" in name or "\\" in name:
        fields.refuse("cpu_graph", "the name of a file beside the graph that ends in .onnx")
    return name


def _input(fields: Fields, family: str) -> InputSpec:
    own = family == TAGCLIP
    spec = InputSpec(
        width_px=_side(fields, "width_px", MULTIPLE_PX.get(family, 1)),
        height_px=_side(fields, "height_px", MULTIPLE_PX.get(family, 1)),
        layout=fields.text("layout", choices=("NHWC",) if own else ("NCHW", "NHWC")),
        dtype=fields.text("dtype", choices=("uint8",) if own else ("uint8", "float32")),
        scale=fields.number("scale", low=1e-6, high=1e6),
        mean=_triple(fields, "mean", -1e6),
        std=_triple(fields, "std", 1e-6),
        colour=fields.text("colour", choices=("RGB",) if own else ("RGB", "BGR")),
        resize=fields.text("resize", choices=("letterbox",) if own else ("letterbox", "stretch")),
        pad_value=fields.integer("pad_value", low=0, high=255),
    )
    fields.close()
    if spec.dtype == "uint8":
        for key, value, plain in (
            ("scale", spec.scale, 1.0),
            ("mean", spec.mean, (0.0, 0.0, 0.0)),
            ("std", spec.std, (1.0, 1.0, 1.0)),
        ):
            if value != plain:
                fields.refuse(key, f"{plain} since uint8 pixels are not normalised")
    return spec


def _side(fields: Fields, key: str, multiple: int) -> int:
    side = fields.integer(key, low=32, high=MAX_SIDE_PX)
    if side % multiple:
        fields.refuse(key, f"a multiple of {multiple}")
    return side


def _triple(fields: Fields, key: str, low: float) -> Triple:
    values = fields.items(key)
    if len(values) != 3 or any(
        isinstance(v, bool) or not isinstance(v, (int, float)) or not low <= v <= 1e6 for v in values
    ):
        fields.refuse(key, f"three numbers from {low:g} to 1e+06, one a channel")
    first, second, third = map(float, values)
    return first, second, third

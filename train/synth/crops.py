"""`tagclip synth crops`: pictures of people from the ground and from the air, with attributes and captions."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tagclip.runtime.errors import DataError, OutputError
from tagclip.runtime.files import folder_atomic, write_atomic
from tagclip.runtime.views import VIEWS
from tagclip.train.datasets.sample import SPLITS
from tagclip.train.synth.annotate import describe_for
from tagclip.train.synth.appearance import to_json
from tagclip.train.synth.figure import Figure
from tagclip.train.synth.people import sample_appearance
from tagclip.train.synth.raycast import use_device
from tagclip.train.synth.shards import CROPS_PER_TAR, gather, packed
from tagclip.train.synth.sheets import PEOPLE, contact_sheet
from tagclip.train.synth.shot import Crop, shoot
from tagclip.train.synth.unfinished import SETTINGS, as_json, part_path, unfinished
from tagclip.train.synth.workers import each
from tagclip.train.synth.world import EVERYTHING, World

GENERATOR = 2  # goes up with every change by which a seed gives other bytes
PEOPLE_PER_PART = 8  # what an interruption may cost each process
HELD_OUT_IDENTITIES = 200  # of validation and of test, at most; a tenth of a small set


def split_of(identity: int, identities: int) -> str:
    """Split of an identity: the lowest numbers are the test set, so it stays the same when the set grows."""
    held_out = min(HELD_OUT_IDENTITIES, max(1, identities // 10))
    return "test" if identity < held_out else "val" if identity < 2 * held_out else "train"


def identity_crops(
    seed: int, identity: int, images_per_view: int, world: World = EVERYTHING
) -> tuple[dict[str, Any], list[tuple[str, Crop]]]:
    """Attributes of an identity and its (view, crop) pictures; the same for the same seed, whoever computes it."""
    rng = np.random.default_rng([seed, identity])
    painted = "geometry" in world.without
    person = world.dress(sample_appearance(rng), rng)
    figure = Figure(person, rng, painted)
    neighbour = Figure(world.dress(sample_appearance(rng), rng), rng, painted)
    pictures = [
        (view, shoot(figure, neighbour, view, rng, world)) for view in VIEWS for _ in range(images_per_view)
    ]
    return to_json(person), pictures


@dataclass(frozen=True)
class Settings:
    """What the bytes of a data set depend on, besides GENERATOR.

    Attributes:
        identities: number of people, at least 3.
        images_per_view: pictures of each from the air and from the ground.
        captions: of each training picture; validation and test pictures have two.
        device: that casts the rays, "cpu" or "cuda"; the last bits of a distance differ.
        world: what is drawn.
    """

    seed: int
    identities: int
    images_per_view: int
    captions: int
    device: str
    world: World = EVERYTHING

    def to_json(self) -> dict[str, Any]:
        """The content of synth.json."""
        own = {key: value for key, value in asdict(self).items() if key != "world"}
        return {"generator": GENERATOR, **own, **self.world.to_json()}

    @property
    def parts(self) -> int:
        """How many parts the work is done in."""
        return -(-self.identities // PEOPLE_PER_PART)

    def people_of(self, part: int) -> range:
        """The identities of a part."""
        return range(part * PEOPLE_PER_PART, min((part + 1) * PEOPLE_PER_PART, self.identities))


def _write_part(job: tuple[Path, Settings, int]) -> int:
    """Worker: writes one part, returns how many people are in it."""
    work, settings, part = job
    import torch

    torch.set_num_threads(1)
    people = settings.people_of(part)
    samples = (sample for identity in people for sample in _samples(settings, identity))
    write_atomic(part_path(work, part), packed(samples))
    return len(people)


def _samples(settings: Settings, identity: int) -> Iterator[tuple[dict[str, Any], bytes]]:
    """(annotation, JPEG) of every picture of an identity."""
    split = split_of(identity, settings.identities)
    attributes, pictures = identity_crops(settings.seed, identity, settings.images_per_view, settings.world)
    counters = {"aerial": 0, "ground": 0}
    for view, crop in pictures:
        name = f"{split}/{identity:06d}_{view[0]}{counters[view]}.jpg"
        counters[view] += 1
        ok, data = cv2.imencode(".jpg", crop.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, crop.jpeg_quality])
        assert ok
        annotation: dict[str, Any] = {
            "file_path": name,
            "id": identity,
            "cam_id": 0 if view == "aerial" else 1,
            "captions": [],
            "elevation_deg": round(crop.elevation_deg, 1),
            "attributes": attributes | {"posture": crop.posture},
            "visible": {k: round(v, 3) for k, v in crop.visible.items()},
        }
        # From the annotation alone, rounded as it is, so that `synth captions` gives the same words again.
        annotation["captions"] = describe_for(split, annotation, settings.seed, settings.captions)
        yield annotation, data.tobytes()


def write_crops(
    out: Path,
    identities: int,
    images_per_view: int = 4,
    seed: int = 0,
    workers: int | None = None,
    tick: Callable[[str, int, int], None] = lambda what, done, total: None,
    *,
    captions: int = 6,
    tar: bool = False,
    device: str = "cpu",
    world: World = EVERYTHING,
) -> dict[str, int]:
    """Make the data set in folder `out` (new or empty), with annotations and a contact sheet.

    A run that was interrupted, however, goes on where it was when it is started again, and gives the same bytes. Until
    it is complete nothing lies in `out`; what is done waits beside it, see `unfinished`. Memory does not grow with the
    number of people.

    Args:
        identities, images_per_view, captions, device, world: see `Settings`.
        workers: processes, default one a core. The result does not depend on it.
        tick: called with "people" or "pictures", how many are done, and of how many; the first call of a run that goes
            on tells what was done already.
        tar: pictures go to tar files of some 1,000, each with whole people, instead of a file each.

    Returns:
        number of images per split.

    Raises:
        OutputError: `out` exists and is not empty, cannot be written, is being written by another run, or an
            unfinished run had other settings.
        ConfigError: `device` is not here.
    """
    use_device(device)
    settings = Settings(seed, identities, images_per_view, captions, device, world)
    with unfinished(out, settings.to_json()) as work:
        try:
            _draw(work, settings, workers or os.cpu_count() or 1, tick)
            return _put_together(work, out, settings, tar, tick)
        except OutputError as error:
            raise OutputError(
                f"{error}; what is done is kept in {work}, and the same command goes on with it"
            ) from error


def _draw(work: Path, settings: Settings, workers: int, tick: Callable[[str, int, int], None]) -> None:
    """Write every part that is not there."""
    todo = [part for part in range(settings.parts) if not part_path(work, part).exists()]
    done = settings.identities - sum(len(settings.people_of(part)) for part in todo)
    if done:
        tick("people", done, settings.identities)
    jobs = ((work, settings, part) for part in todo)
    for people in each(_write_part, jobs, workers, use_device, settings.device):
        done += people
        tick("people", done, settings.identities)


def _put_together(
    work: Path, out: Path, settings: Settings, tar: bool, tick: Callable[[str, int, int], None]
) -> dict[str, int]:
    """Make `out` of the parts, all of it at once; the number of images per split."""
    of_each = len(VIEWS) * settings.images_per_view
    total = of_each * settings.identities
    parts = (part_path(work, part) for part in range(settings.parts))
    counts, shown = Counter[str](), []
    first = min(k for k in range(settings.identities) if split_of(k, settings.identities) == "train")
    with folder_atomic(out) as folder:
        try:
            people_per_tar = max(1, CROPS_PER_TAR // of_each) if tar else None
            for split, row in gather(
                parts, folder, people_per_tar, lambda done: tick("pictures", done, total)
            ):
                counts[split] += 1
                if first <= row["id"] < first + PEOPLE:
                    shown.append(row)
        except DataError as error:
            raise OutputError(f"{error}; remove that file, so that it is made again") from error
        write_atomic(folder / "sheet.png", contact_sheet(folder / "images", shown))
        write_atomic(folder / SETTINGS, as_json(settings.to_json()))
    return {split: counts[split] for split in SPLITS}

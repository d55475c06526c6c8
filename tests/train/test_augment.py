"""Augmentation keeps shapes and ranges, draws what it says, and a slice of a batch sees what the whole would."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
v2 = pytest.importorskip("torchvision.transforms.v2")

from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.train.augment import LIGHT_DRAWS, Released, kept_spec, light

SPEC = PreprocessSpec(32, 16)


def lit(images: NDArray[np.uint8], seed: int) -> NDArray[np.float32]:
    return light(images, SPEC, np.random.default_rng(seed).random((len(images), LIGHT_DRAWS)))


def test_light_shapes_and_ranges() -> None:
    assert kept_spec(SPEC, "light") == PreprocessSpec(34, 17) and kept_spec(SPEC, "released") == SPEC
    images = np.random.default_rng(0).integers(0, 256, (200, 34, 17, 3), dtype=np.uint8)
    kept = images.copy()
    out = lit(images, 0)
    assert out.shape == (200, 32, 16, 3) and out.dtype == np.float32
    assert out.min() >= 0 and out.max() <= 255 and np.isfinite(out).all()
    np.testing.assert_array_equal(images, kept)


@pytest.mark.parametrize("end", [0.0, 1 - 1e-12])
def test_light_at_the_ends_of_its_chance(end: float) -> None:
    """Draws of 0 take the top left corner, those of nearly 1 the bottom right; none leaves the picture."""
    ramp = np.broadcast_to((10 * np.arange(17))[None, None, :, None], (1, 34, 17, 3)).astype(np.uint8)
    out = light(ramp, SPEC, np.full((1, LIGHT_DRAWS), end))
    assert out.shape == (1, 32, 16, 3)
    if end:  # not mirrored, not erased: columns 1..16 with the largest gain, colour cast and lift
        np.testing.assert_allclose(
            out[0, 0, :, 0], np.minimum(255, 10 * np.arange(1, 17) * 1.25 * 1.06 + 15), rtol=1e-4
        )


def test_light_crops_mirrors_and_erases() -> None:
    """A ramp along x tells where each picture was cut and whether it was mirrored, a flat one what was erased."""
    ramp = np.broadcast_to((10 * np.arange(17))[None, None, :, None], (300, 34, 17, 3)).astype(np.uint8)
    out = lit(ramp, 1)
    rising = out[:, :, -1, 0].mean(1) > out[:, :, 0, 0].mean(1)
    assert 0.35 < rising.mean() < 0.65
    flat = lit(np.full((300, 34, 17, 3), 128, np.uint8), 2)
    erased = np.ptp(flat, axis=(1, 2)).max(-1) > 1
    assert 0.2 < erased.mean() < 0.4
    levels = flat[~erased].mean((1, 2))
    low, high = 128 * 0.8 * 0.94 - 15, 128 * 1.25 * 1.06 + 15  # gain, colour cast and lift at their ends
    assert levels.std() > 10 and low <= levels.min() and levels.max() <= high


def test_light_of_a_slice_is_the_slice_of_the_whole() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 34, 17, 3), dtype=np.uint8)
    draws = np.random.default_rng(7).random((6, LIGHT_DRAWS))
    np.testing.assert_array_equal(light(images, SPEC, draws)[2:4], light(images[2:4], SPEC, draws[2:4]))


def test_released_is_what_torchvision_makes_of_its_parameters() -> None:
    """The operations with the parameters they drew, run by torchvision's functions on 0..1, as ToTensor gives."""
    F = v2.functional
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 16, 3), dtype=np.uint8)
    augment = Released(SPEC)
    drawn = augment.draw(64, 5)
    out = augment(images, drawn)
    assert out.dtype == np.float32 and out.shape == images.shape and 0 <= out.min() and out.max() <= 255
    seen = set()
    for image, steps, found in zip(images, drawn, out, strict=True):
        x = torch.from_numpy(image).permute(2, 0, 1) / 255
        for operation, p in steps:
            seen.add(type(operation))
            if isinstance(operation, v2.RandomRotation):
                assert abs(p["angle"]) <= 15
                x = F.rotate(x, p["angle"], fill=[0.0, 0.0, 0.0])
            elif isinstance(operation, v2.RandomResizedCrop):
                x = F.resized_crop(x, p["top"], p["left"], p["height"], p["width"], [32, 16], antialias=True)
            elif isinstance(operation, v2.RandomGrayscale):
                x = F.rgb_to_grayscale(x, 3)
            elif isinstance(operation, v2.RandomHorizontalFlip):
                x = x.flip(-1)
            elif isinstance(operation, v2.RandomErasing):
                assert 0.08 < p["h"] * p["w"] / (32 * 16) < 0.22
                x = x.clone()
                x[:, p["i"] : p["i"] + p["h"], p["j"] : p["j"] + p["w"]] = 0
            else:
                assert p["hue_factor"] is None
                for k in p["fn_idx"].tolist():
                    name = ("brightness", "contrast", "saturation", None)[k]
                    if name:
                        assert 0.9 <= p[f"{name}_factor"] <= 1.1
                        x = getattr(F, f"adjust_{name}")(x, p[f"{name}_factor"])
        np.testing.assert_allclose(found, (x * 255).clamp(0, 255).permute(1, 2, 0).numpy(), atol=1e-3)
    assert len(seen) == 6


def test_released_draws_two_operations_with_replacement() -> None:
    """Six operations, of which three happen with a chance of 0.1, 0.5 and 0.5."""
    drawn = Released(SPEC).draw(3000, 0)
    mean = np.mean([len(steps) for steps in drawn])
    assert mean == pytest.approx(2 * (3 + 0.1 + 0.5 + 0.5) / 6, abs=0.05)
    assert any(len(steps) == 2 and steps[0][0] is steps[1][0] for steps in drawn)


def test_released_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    one = Released(SPEC).draw(8, 1)
    assert torch.equal(torch.rand(4), wanted)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 16, 3), dtype=np.uint8)
    again, other = Released(SPEC).draw(8, 1), Released(SPEC).draw(8, 2)
    np.testing.assert_array_equal(Released(SPEC)(images, one), Released(SPEC)(images, again))
    assert (Released(SPEC)(images, one) != Released(SPEC)(images, other)).any()

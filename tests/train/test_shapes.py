"""Meshes of clothes and bags: what encloses what, and which way faces look."""

import numpy as np
import pytest

from tagclip.train.synth.body import vertex_normals
from tagclip.train.synth.shapes import Mesh, grid_faces, rings, rounded_box, skirt


def legs(stride: float) -> np.ndarray:
    """Two upright cylinders of 7 cm radius from the hip (0.9 m) down, one stepping forward."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    height = np.linspace(0, 0.9, 60)
    points = [
        [side * 0.1 + 0.07 * np.cos(a), side * stride * (0.9 - z) + 0.07 * np.sin(a), z]
        for side in (-1, 1)
        for z in height
        for a in angle
    ]
    return np.array(points, np.float32)


def reach(points: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Farthest of points (n, 2) in each direction (A,)."""
    return (points @ np.stack([np.sin(angles), np.cos(angles)])).max(0)


@pytest.mark.parametrize("stride", [0.0, 0.4])
def test_a_skirt_encloses_the_legs(stride: float) -> None:
    body = legs(stride)
    mesh = skirt(body, np.zeros(2, np.float32), 0.9, 0.4, 0.01, 0.1)
    angles = np.linspace(0, 2 * np.pi, 29)[:-1]
    ring_rows = mesh.vertices.reshape(12, 28, 3)
    np.testing.assert_allclose(ring_rows[:, 0, 2], np.linspace(0.9, 0.4, 12), atol=1e-6)
    for ring in ring_rows:
        inside = body[np.abs(body[:, 2] - ring[0, 2]) < 0.045]
        # 1 mm: rounding of single precision is far below, the ease of 1 cm well above
        assert (reach(ring[:, :2], angles) > reach(inside[:, :2], angles) + 0.009).all()


def test_a_skirt_spans_the_gap_between_the_legs() -> None:
    """Straight ahead no leg reaches farther than 7 cm, yet the cloth in front is one sheet without a notch."""
    mesh = skirt(legs(0.0), np.zeros(2, np.float32), 0.9, 0.4, 0.01, 0.0)
    ring = mesh.vertices.reshape(12, 28, 3)[5]
    radius = np.hypot(ring[:, 0], ring[:, 1])
    assert radius.min() > 0.075 and radius.max() < 0.2


def test_rounded_box_keeps_its_bounds() -> None:
    half, centre = (0.1, 0.2, 0.3), np.array([1, -2, 3], np.float32)
    mesh = rounded_box(centre, half)
    np.testing.assert_allclose(mesh.vertices.min(0), centre - half, atol=1e-6)
    np.testing.assert_allclose(mesh.vertices.max(0), centre + half, atol=1e-6)


def test_power_one_is_an_ellipsoid_and_less_is_nearer_to_a_box() -> None:
    round_, boxy = (
        rounded_box(np.zeros(3, np.float32), (1.0, 1.0, 1.0), power).vertices for power in (1.0, 0.2)
    )
    np.testing.assert_allclose(np.linalg.norm(round_, axis=1), 1, atol=1e-6)
    assert np.linalg.norm(boxy, axis=1).max() > 1.5  # the corner of the cube is at 1.73


def volume(mesh: Mesh) -> float:
    """Volume within a closed mesh; faces that disagree on which side is out would cancel."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]].astype(float) for k in range(3))
    return abs(float((a * np.cross(b, c)).sum() / 6))


@pytest.mark.parametrize("power", [1.0, 0.35])
def test_normals_of_a_box_are_radial_and_all_on_one_side(power: float) -> None:
    """On which side does not matter: the renderer turns every normal to the camera."""
    mesh = rounded_box(np.zeros(3, np.float32), (1.0, 1.0, 1.0), power)
    normals = vertex_normals(mesh.vertices, mesh.faces)[
        16:-16
    ]  # without the poles, where triangles are empty
    outwards = mesh.vertices[16:-16] / np.linalg.norm(mesh.vertices[16:-16], axis=1, keepdims=True)
    cosine = (normals * outwards).sum(1)
    assert np.abs(cosine).min() > (0.99 if power == 1 else 0.5) and abs(np.sign(cosine).sum()) == len(cosine)


def test_a_fine_sphere_is_closed_and_wound_one_way() -> None:
    """16 x 8 flat facets lie inside the sphere, whose volume is 4.19."""
    assert 3.6 < volume(rounded_box(np.zeros(3, np.float32), (1.0, 1.0, 1.0), 1.0)) < 4.19


@pytest.mark.parametrize(("wrap", "count"), [(False, 2 * 2 * 3), (True, 2 * 2 * 4)])
def test_grid_faces_cover_every_cell_once(wrap: bool, count: int) -> None:
    faces = grid_faces(3, 4, wrap)
    assert faces.shape == (count, 3) and faces.max() == 11 and len(np.unique(faces)) == 12
    edges = [tuple(sorted(e)) for f in faces.tolist() for e in ((f[0], f[1]), (f[1], f[2]), (f[2], f[0]))]
    assert max(edges.count(e) for e in edges) == 2  # two triangles an edge at most: no fold


def test_rings_put_the_back_first_and_the_left_second() -> None:
    centres = np.array([[1, 2, 3], [1, 2, 4]], np.float32)
    mesh = rings(centres, np.array([0.5, 0.25], np.float32), np.array([0, np.pi / 2]), wrap=False)
    np.testing.assert_allclose(
        mesh.vertices, [[1, 2.25, 3], [1.5, 2, 3], [1, 2.25, 4], [1.5, 2, 4]], atol=1e-6
    )


def test_moved_turns_then_shifts() -> None:
    mesh = Mesh(np.array([[1, 0, 0]], np.float32), np.zeros((1, 3), np.int32))
    quarter = np.array([[0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]], np.float32)
    np.testing.assert_allclose(mesh.moved(quarter).vertices, [[5, 7, 7]])

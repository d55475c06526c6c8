"""Ray casting of a triangle mesh with warp: what each pixel sees, and whether the sun reaches it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import ConfigError
from tagclip.train.synth.body import Array
from tagclip.train.synth.quiet import quiet_warp
from tagclip.train.synth.shapes import Faces

_device = "cpu"


def use_device(name: str) -> None:
    """Cast all rays of this process from now on on a device.

    Args:
        name: "cpu" or "cuda".

    Raises:
        ConfigError: no such device, or warp finds no CUDA GPU with a driver.
    """
    global _device
    if name not in ("cpu", "cuda"):
        raise ConfigError(f"device must be cpu or cuda, found {name!r}")
    if name == "cuda" and not _kernel()[0].is_cuda_available():
        raise ConfigError(
            "--device cuda needs an NVIDIA GPU with its driver, warp finds none; use --device cpu"
        )
    _device = name


@dataclass(frozen=True)
class Seen:
    """What rays hit, one row a ray.

    Attributes:
        face: (n,) int32 triangle, -1 for none.
        weights: (n, 3) float32 barycentric weights of the triangle's corners.
        distance: (n,) metres to the triangle or to the ground (inf when neither is hit).
        sunlit: (n,) bool, on triangles and on the ground.
    """

    face: NDArray[np.int32]
    weights: Array
    distance: Array
    sunlit: NDArray[np.bool_]


@functools.cache
def _kernel() -> tuple[Any, Callable[..., Any]]:
    """warp and the compiled kernel; compiled once a machine, then cached by warp."""
    import warp as wp

    quiet_warp()
    wp.init()

    @wp.kernel  # type: ignore[untyped-decorator,unused-ignore]
    def cast(
        mesh: wp.uint64,
        origin: wp.vec3,
        directions: wp.array(dtype=wp.vec3),  # type: ignore[valid-type]
        sun: wp.vec3,
        face: wp.array(dtype=wp.int32),  # type: ignore[valid-type]
        weights: wp.array(dtype=wp.vec3),  # type: ignore[valid-type]
        distance: wp.array(dtype=wp.float32),  # type: ignore[valid-type]
        sunlit: wp.array(dtype=wp.int32),  # type: ignore[valid-type]
    ) -> None:
        i = wp.tid()
        direction = directions[i]
        found = wp.mesh_query_ray(mesh, origin, direction, 1.0e5)
        reach = 1.0e6
        face[i] = -1
        if found.result:
            face[i] = found.face
            weights[i] = wp.vec3(found.u, found.v, 1.0 - found.u - found.v)
            reach = found.t
        elif direction[2] < -1.0e-4:
            reach = -origin[2] / direction[2]
        distance[i] = reach
        sunlit[i] = 1
        if reach < 1.0e5:
            at = origin + (reach - 2.0e-3) * direction
            blocked = wp.mesh_query_ray_anyhit(mesh, at + 4.0e-3 * sun, sun, 1.0e3, -1)
            if blocked:
                sunlit[i] = 0

    return wp, cast


class Caster:
    """Holds one mesh for any number of ray bundles."""

    def __init__(self, vertices: Array, faces: Faces):
        wp, _ = _kernel()
        self._mesh = wp.Mesh(
            points=wp.array(vertices, dtype=wp.vec3, device=_device),
            indices=wp.array(faces.ravel(), dtype=wp.int32, device=_device),
        )

    def cast(self, origin: Array, directions: Array, sun: Array) -> Seen:
        """Cast rays.

        Args:
            origin: (3,) metres, above the ground plane z = 0.
            directions: (n, 3) unit vectors.
            sun: (3,) unit vector towards the sun.
        """
        wp, kernel = _kernel()
        n = len(directions)
        face = wp.empty(n, dtype=wp.int32, device=_device)
        weights = wp.zeros(n, dtype=wp.vec3, device=_device)
        distance = wp.empty(n, dtype=wp.float32, device=_device)
        sunlit = wp.empty(n, dtype=wp.int32, device=_device)
        wp.launch(
            kernel,
            dim=n,
            inputs=[
                self._mesh.id,
                wp.vec3(*[float(v) for v in origin]),
                wp.array(np.ascontiguousarray(directions, np.float32), dtype=wp.vec3, device=_device),
                wp.vec3(*[float(v) for v in sun]),
                face,
                weights,
                distance,
                sunlit,
            ],
            device=_device,
        )
        reach = distance.numpy()
        return Seen(face.numpy(), weights.numpy(), np.where(reach < 1e5, reach, np.inf), sunlit.numpy() != 0)

"""Graphs and probes that open and must still be refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
from attacks.attacker import (
    ENGINE,
    GRAPHS,
    INTEGRITY,
    SELFTEST,
    Expected,
    attack,
    edit,
    graph_of,
    probe_of,
    put_graph,
    put_probe,
    rename,
    seal,
)


@attack
def swapped_towers(folder: Path, rng: random.Random, world: Path) -> Expected:
    choice = rng.randrange(6)
    one, other = (folder / name for name in rng.sample(GRAPHS, 2))
    views = {one.name, other.name} == set(GRAPHS[:2])
    if choice < 3:  # the files change places
        data = one.read_bytes(), other.read_bytes()
        one.write_bytes(data[1])
        other.write_bytes(data[0])
    else:  # the manifest says it of them

        def change(value: dict[str, Any]) -> None:
            a, b = (value["towers"][path.stem] for path in (one, other))
            a["file"], b["file"] = b["file"], a["file"]

        edit(folder, change)
    if choice in (0, 3):
        seal(folder)
        return INTEGRITY
    if choice == 1:
        return INTEGRITY
    rename(folder)
    return SELFTEST if views else ENGINE


@attack
def graph_that_does_not_fit(folder: Path, rng: random.Random, world: Path) -> Expected:
    from onnx import TensorProto, helper

    name = rng.choice(GRAPHS)
    model = graph_of(folder, name)
    graph = model.graph
    choice = rng.randrange(8)
    if choice == 0:
        old, graph.input[0].name = graph.input[0].name, "other"
        for node in graph.node:
            node.input[:] = ["other" if n == old else n for n in node.input]
    elif choice == 1:
        graph.node[-1].output[0] = graph.output[0].name = "vector"
    elif choice == 2:
        graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    elif choice == 3:
        graph.output.append(
            helper.make_tensor_value_info(graph.node[0].output[0], TensorProto.UNDEFINED, None)
        )
    elif choice == 4:  # nothing is normalised
        graph.node[-1].op_type = "Mul"
    elif choice == 5:
        graph.node[-1].op_type = rng.choice(["NoSuchOperation", ""])
    elif choice == 6:
        model.opset_import[0].version = rng.choice([0, 1, 10**6])
    else:
        graph.node[-1].domain = "org.example"
    put_graph(folder, name, model)
    return SELFTEST if choice == 4 else ENGINE


@attack
def other_weights(folder: Path, rng: random.Random, world: Path) -> Expected:
    """A sound graph that computes something else."""
    name = rng.choice(GRAPHS)
    model = graph_of(folder, name)
    tensor = next(t for t in model.graph.initializer if t.name in ("matrix", "table"))
    values = np.random.default_rng(rng.randrange(2**32)).normal(size=tuple(tensor.dims))
    tensor.raw_data = values.astype(np.float32).tobytes()
    put_graph(folder, name, model)
    return SELFTEST


@attack
def probe_that_proves_nothing(folder: Path, rng: random.Random, world: Path) -> Expected:
    arrays = probe_of(folder)
    name = rng.choice(sorted(arrays))
    choice = rng.randrange(7)
    if choice == 0:
        del arrays[name]
    elif choice == 1:
        arrays[name] = arrays[name][:0]
    elif choice == 2:
        arrays[name] = np.array([{"a": 1}], dtype=object)  # a pickle
    elif choice == 3:
        arrays[name] = arrays[name].astype("S" if name == "texts" else np.complex128)
    elif choice == 4:
        arrays[name] = arrays[name][..., None]
    elif choice == 5:
        arrays[name] = np.concatenate([arrays[name]] * 2)
    else:
        name = rng.choice([n for n in sorted(arrays) if n.startswith("vectors")])
        arrays[name] = arrays[name] * rng.choice([np.nan, 0.0, -1.0, 0.5])
    put_probe(folder, {key: value for key, value in arrays.items()})
    return SELFTEST


@attack
def no_probe(folder: Path, rng: random.Random, world: Path) -> Expected:
    path = folder / "probe.npz"
    if rng.random() < 0.3:
        path.unlink()
    else:
        path.write_bytes(rng.randbytes(rng.randint(0, 500)))
    seal(folder)
    return SELFTEST

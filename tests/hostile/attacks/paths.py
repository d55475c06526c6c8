"""Leaving the folder: through names, and through what a graph calls its weights."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from attacks.attacker import GRAPHS, INTEGRITY, MANIFEST, Expected, attack, digest, edit, graph_of, put_graph


def leaving_name(rng: random.Random, world: Path, suffix: str) -> str:
    up = "../" * rng.randint(1, 8)
    return rng.choice(
        [
            f"{up}outside/canary{suffix}",
            f"{world}/outside/canary{suffix}",
            f"./x{suffix}",
            f"engines/{up}outside/canary{suffix}",
            f"a/../b{suffix}",
            f"..\\outside\\canary{suffix}",
            f"C:\\canary{suffix}",
            f"\\\\host\\share\\canary{suffix}",
            f"//host/canary{suffix}",
            f"file:///{world}/outside/canary{suffix}",
            f"https://example.org/canary{suffix}",
            f"%2e%2e%2foutside%2fcanary{suffix}",
            f"\u2025/canary{suffix}",
            f"canary\0{suffix}",
            f"~/canary{suffix}",
            f"$HOME{suffix}",
            f"canary..{suffix}",
            f"{'a' * rng.randint(101, 5000)}{suffix}",
            f" canary{suffix}",
            f"canary{suffix} ",
            f"can\nary{suffix}",
            f"-rf{suffix}",
            "..",
            ".",
            "",
            "/",
        ]
    )


@attack
def leaving_through_the_manifest(folder: Path, rng: random.Random, world: Path) -> Expected:
    def change(value: dict[str, Any]) -> None:
        tower = rng.choice([*value["towers"], None])
        part = value["tokenizer"] if tower is None else value["towers"][tower]
        part["file"] = leaving_name(rng, world, ".json" if tower is None else ".onnx")

    edit(folder, change)
    return MANIFEST


@attack
def leaving_through_the_sums(folder: Path, rng: random.Random, world: Path) -> Expected:
    path = folder / "SHA256SUMS"
    lines = path.read_text().splitlines(keepends=True)
    name = leaving_name(rng, world, rng.choice(["", ".onnx"]))
    if rng.random() < 0.5:
        lines.append(f"{digest(world / 'outside' / 'canary')}  {name}\n")
    else:
        at = rng.randrange(len(lines))
        lines[at] = f"{lines[at][:64]}  {name}\n"
    rows = "".join(sorted(lines, key=lambda line: line[66:]))
    path.write_bytes(rows.encode())
    return INTEGRITY


@attack
def external_data(folder: Path, rng: random.Random, world: Path) -> Expected:
    """Weights outside of the graph, wherever ONNX can hold a tensor."""
    import onnx
    from onnx import TensorProto, helper

    name = rng.choice(GRAPHS)
    model = graph_of(folder, name)
    floats = [
        t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.raw_data) >= 64
    ]
    weights = rng.choice(floats)
    size = len(weights.raw_data)
    inside = "weights.bin"
    where = rng.choice(
        [
            f"{'../' * rng.randint(1, 9)}{str(world / 'outside')[1:]}/canary",
            str(world / "outside" / "canary"),
            str(world / "outside" / "pipe"),
            inside,
            f"../{folder.name}/{inside}",
            "/proc/self/environ",
            "/dev/zero",
            "",
        ]
    )
    if where == inside:  # listed and hashed, and still not what the encoder id covers
        (folder / inside).write_bytes(weights.raw_data)
    if rng.random() < 0.3:
        os.link(world / "outside" / "canary", folder / "linked.bin")
        where = "linked.bin"

    def away(tensor: Any) -> Any:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", where), ("offset", "0"), ("length", str(size))):
            if value or rng.random() < 0.5:
                tensor.external_data.add(key=key, value=value)
        if rng.random() < 0.2:  # the place without the flag
            tensor.ClearField("data_location")
            tensor.external_data.add(key="location", value=where)
        return tensor

    place = rng.randrange(6)
    if place == 0:
        away(weights)
    else:
        spare = TensorProto()
        spare.CopyFrom(weights)
        spare.name = "spare"
        away(spare)
        constant = helper.make_node("Constant", [], ["spare"], value=spare)
        if place == 1:
            model.graph.node.insert(0, constant)
        elif place == 2:
            branch = helper.make_graph(
                [constant], "branch", [], [helper.make_empty_tensor_value_info("spare")]
            )
            model.graph.node.add(op_type="If", input=["yes"], output=["any"]).attribute.extend(
                [helper.make_attribute("then_branch", branch), helper.make_attribute("else_branch", branch)]
            )
        elif place == 3:
            model.functions.append(
                helper.make_function("own", "f", [], ["spare"], [constant], [helper.make_opsetid("", 17)])
            )
        elif place == 4:
            sparse = onnx.SparseTensorProto(dims=[4])
            sparse.values.CopyFrom(spare)
            model.graph.sparse_initializer.append(sparse)
        else:
            model.graph.node[0].attribute.add(name="own", type=onnx.AttributeProto.TENSORS).tensors.append(
                spare
            )
    put_graph(folder, name, model)
    return INTEGRITY

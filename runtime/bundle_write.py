"""Writing a bundle: all of it or nothing, and the same parts always make the same bytes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tagclip.runtime.bundle import Bundle, encoder_id, open_bundle
from tagclip.runtime.bundle_manifest import (
    MANIFEST,
    RESERVED,
    SUMS,
    TEXT,
    Manifest,
    TokenizerSpec,
    TowerFacts,
    image_tower,
    is_plain_name,
    make_tower,
    parse_manifest,
)
from tagclip.runtime.errors import BundleManifestError
from tagclip.runtime.fields import canonical_json, parse_object
from tagclip.runtime.files import folder_atomic
from tagclip.runtime.preprocess import PreprocessSpec
from tagclip.runtime.views import TOWER_VIEWS

TOKENIZER_FILE = "tokenizer.json"


def write_bundle(
    target: Path,
    *,
    name: str,
    towers: Mapping[str, TowerFacts],
    graphs: Mapping[str, bytes],
    tokenizer_json: bytes,
    preprocess: PreprocessSpec,
    embedding_dim: int,
    context_length: int,
    pad_id: int,
    licence: str,
    provenance: Mapping[str, Any],
    extra_files: Mapping[str, bytes] | None = None,
    replace: bool = False,
) -> Bundle:
    """Write a bundle folder and open it; `target` appears only when what it holds passes `open_bundle`.

    Args:
        target: the folder to make.
        name: what people call the model, up to 100 characters.
        towers: "text" and one or more of "image-aerial", "image-ground", "image-universal" -> precision and
            parameter count.
        graphs: the ONNX bytes of the same towers. Image: `crops` uint8 (N, H, W, 3); text: `tokens`
            int64 (N, context_length); both give `embedding` float32 (N, embedding_dim), unit rows.
        tokenizer_json: loads with `tokenizers`.
        preprocess: the size of the crops in pixels.
        embedding_dim: D.
        context_length: tokens in a text.
        pad_id: the token that fills a short text.
        licence: SPDX expression of the weights.
        provenance: where the weights come from; anything JSON can say.
        extra_files: file name -> bytes, such as scores.json, report.json and probe.npz.
        replace: swap out an existing folder.

    Raises:
        BundleManifestError: the parts do not make a valid bundle.
        OutputError: `target` exists and `replace` is off, or cannot be written.
    """
    views = tuple(view for view in TOWER_VIEWS if image_tower(view) in towers)
    expected = {TEXT, *(image_tower(view) for view in views)}
    if not views or set(towers) != expected or set(graphs) != expected:
        raise BundleManifestError(
            f"expected {TEXT} and one or more of {[image_tower(view) for view in TOWER_VIEWS]} in towers and "
            f"in graphs, found {sorted(towers)} and {sorted(graphs)}"
        )
    files = dict(extra_files or {})
    files_of_towers = {tower: f"{tower}.onnx" for tower in expected}
    for extra in files:
        if not is_plain_name(extra) or extra in (*RESERVED, TOKENIZER_FILE, *files_of_towers.values()):
            raise BundleManifestError(
                f"extra file {extra!r}: expected a plain name that the format does not use"
            )
    files[TOKENIZER_FILE] = tokenizer_json
    files.update({files_of_towers[tower]: graph for tower, graph in graphs.items()})

    digests = {tower: hashlib.sha256(graph).hexdigest() for tower, graph in graphs.items()}
    tokenizer_sha256 = hashlib.sha256(tokenizer_json).hexdigest()
    manifest = Manifest(
        name=name,
        encoder_id=encoder_id(digests, preprocess, tokenizer_sha256, context_length, pad_id),
        embedding_dim=embedding_dim,
        views=views,
        towers={
            tower: make_tower(
                tower,
                files_of_towers[tower],
                towers[tower],
                view=view,
                preprocess=preprocess,
                context_length=context_length,
                embedding_dim=embedding_dim,
            )
            for view in (*views, None)
            for tower in (TEXT if view is None else image_tower(view),)
        },
        preprocess=preprocess,
        tokenizer=TokenizerSpec(TOKENIZER_FILE, context_length, pad_id),
        licence=licence,
        provenance=provenance,
    )
    files[MANIFEST] = canonical_json(manifest.to_json())
    parse_manifest(parse_object(files[MANIFEST], MANIFEST))  # refuse before anything touches the disk
    return _write(target, files, replace)


def rewrite_bundle(bundle: Bundle, target: Path, extra_files: Mapping[str, bytes]) -> Bundle:
    """A copy of a bundle with extra files added or replaced; it has no signature.

    Raises:
        BundleManifestError: a name that the format uses.
        BundleIntegrityError: the bundle changed since it was opened.
        OutputError: `target` exists, or cannot be written.
    """
    taken = (*RESERVED, TOKENIZER_FILE, *(tower.file for tower in bundle.manifest.towers.values()))
    for extra in extra_files:
        if not is_plain_name(extra) or extra in taken:
            raise BundleManifestError(
                f"extra file {extra!r}: expected a plain name that the format does not use"
            )
    files = {name: bundle.read_file(name) for name in bundle.sha256} | dict(extra_files)
    return _write(target, files, replace=False)


def _write(target: Path, files: dict[str, bytes], replace: bool) -> Bundle:
    """Files by name, without SHA256SUMS."""
    sums = "".join(f"{hashlib.sha256(files[file]).hexdigest()}  {file}\n" for file in sorted(files))
    files[SUMS] = sums.encode("ascii")
    with folder_atomic(target, replace=replace) as work:
        for file, data in files.items():
            (work / file).write_bytes(data)
        bundle = open_bundle(work)
    return dataclasses.replace(bundle, path=target)

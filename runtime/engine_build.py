"""From a bundle's graphs to a folder of engines: build, self-test where a GPU is, write all of it or nothing."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.engine_facts import NO_GPU, EngineFacts, EngineTower, Target
from tagclip.runtime.engine_store import (
    FACTS,
    TIMING_CACHE,
    Engine,
    engine_path,
    list_engines,
    open_engine,
    precision,
    read_facts,
    read_timing_cache,
)
from tagclip.runtime.errors import EngineError, EngineMismatchError, MissingExtraError, OutputError
from tagclip.runtime.fields import canonical_json
from tagclip.runtime.files import folder_atomic
from tagclip.runtime.gpu import find_gpu
from tagclip.runtime.probe import tower_cosine
from tagclip.runtime.trt import CAPABILITIES, TENSORRT, TENSORRT_RTX, build_engine, load_binding, short_line
from tagclip.runtime.trt_engine import TrtEngine


@dataclass(frozen=True)
class BuiltTower:
    """A tower's engine that is to be written."""

    name: str
    engine: bytes
    batches: tuple[int, int, int]  # smallest, best and largest
    timing_cache: bytes
    min_cosine: float | None  # None: not tested


def find_target(runtime: str, capability: str | None = None) -> tuple[Target, str | None]:
    """What `runtime` builds for on this machine, and why its engines cannot be tested here (None: they can).

    Args:
        runtime: "tensorrt" or "tensorrt-rtx".
        capability: the GPU to build for instead of this machine's, one of `trt.CAPABILITIES`; tensorrt-rtx only.

    Raises:
        MissingExtraError: the runtime is not installed; or cuda-bindings is not, and no `capability` is given.
        EngineError: there is no GPU and no `capability` is given, or it is not one to build for.
    """
    version = load_binding(runtime).version
    if runtime == TENSORRT and capability is not None:
        raise EngineError(
            f"{runtime} builds for the GPU that it runs on; leave out the capability {capability}"
        )
    try:
        gpu = find_gpu()
    except (EngineError, MissingExtraError) as error:
        if runtime == TENSORRT:
            raise
        if capability is None:
            raise type(error)(
                f"{error}; for another machine's GPU name it with --capability {'|'.join(CAPABILITIES)}"
            ) from error
        return Target(runtime, version, NO_GPU, capability), short_line(str(error))
    if capability is not None and capability != gpu.capability:
        reason = f"built for {capability}, this machine's GPU is {gpu.name} ({gpu.capability})"
        return Target(runtime, version, NO_GPU, capability), reason
    if runtime == TENSORRT_RTX and gpu.capability not in CAPABILITIES:
        raise EngineError(
            f"{runtime} {version} builds for {', '.join(CAPABILITIES)}, this GPU is {gpu.name} ({gpu.capability}); "
            f"use --engine {TENSORRT}, or name another machine's GPU with --capability"
        )
    return Target(runtime, version, gpu.name, gpu.capability), None


def foreign_engines(bundle: Bundle, target: Target) -> list[EngineMismatchError]:
    """What is wrong with the engines in the bundle's folder, each error naming its folder.

    An engine for another runtime or another GPU is as it should be: one bundle may serve several machines.
    """
    errors = []
    for folder in list_engines(bundle):
        try:
            found = read_facts(folder).target
            meant = replace(found, version=target.version, gpu=target.gpu if target.portable else found.gpu)
            open_engine(bundle, folder, target if meant == target else found)
        except EngineMismatchError as error:
            errors.append(error)
    return errors


def build_engines(
    bundle: Bundle,
    target: Target,
    *,
    untested: str | None,
    max_batch: int,
    workspace_mb: int,
    memory_mb: int | None,
    progress: Callable[[str, float], None],
    warn: Callable[[str], None],
) -> Engine:
    """Build the engine of every tower and write their folder; an older one of the same key is replaced in one step.

    Args:
        bundle: an opened bundle, in a folder that can be written to.
        target, untested: as `find_target` returned them.
        max_batch: the largest batch, at least 1.
        workspace_mb: the most scratch memory of one layer, in MiB.
        memory_mb: as in `build_engine`.
        progress: called with the tower at work and the part of all towers that is done, 0 to 1.
        warn: called with what a person has to know but that stops nothing.

    Raises:
        MissingExtraError, EngineError: as in `build_engine` and TrtEngine.
        BundleSelfTestError: an engine does not compute what the bundle was made with; nothing is written.
        OutputError: the bundle's folder cannot be written to.
    """
    sizes = {
        tower.name: (bundle.path / tower.file).stat().st_size for tower in bundle.manifest.towers.values()
    }

    def built() -> Iterator[BuiltTower]:
        try:
            cache = read_timing_cache(engine_path(bundle, target))
        except EngineMismatchError as error:
            warn(f"built without its timing cache: {error}")
            cache = b""
        done_bytes = 0
        for name, tower in bundle.manifest.towers.items():

            def report(part: float, name: str = name, before_bytes: int = done_bytes) -> None:
                progress(name, (before_bytes + part * sizes[name]) / sum(sizes.values()))

            report(0)
            result = build_engine(
                target.runtime,
                bundle.read_file(tower.file),
                name=name,
                max_batch=max_batch,
                workspace_mb=workspace_mb,
                memory_mb=memory_mb,
                capability=target.capability if target.runtime == TENSORRT_RTX else None,
                timing_cache=cache,
                progress=report,
            )
            for warning in result.warnings:
                warn(warning)
            cache = result.timing_cache
            cosine = None
            if untested is None:
                engine = TrtEngine(result.engine, tower, runtime=target.runtime, max_batch=max_batch)
                cosine = tower_cosine(bundle, tower, engine.run)
            yield BuiltTower(name, result.engine, result.batches, cache, cosine)
            done_bytes += sizes[name]
            report(1, name, done_bytes - sizes[name])

    return write_engines(bundle, target, built(), untested=untested)


def write_engines(
    bundle: Bundle, target: Target, towers: Iterable[BuiltTower], *, untested: str | None
) -> Engine:
    """Write the folder of engines, each tower's as soon as it is there; an older one of the same key is replaced.

    Args:
        towers: one for each tower of the bundle.
        untested: why no tower has a cosine; None if all have.

    Raises:
        OutputError: the bundle's folder cannot be written to. Whatever else `towers` raises; nothing is written then.
    """
    started_s = time.monotonic()
    path = engine_path(bundle, target)
    facts: dict[str, EngineTower] = {}
    cosines: dict[str, float] = {}
    cache = b""
    try:
        with folder_atomic(path, replace=True) as work:
            for tower in towers:
                file = f"{tower.name}.engine"
                (work / file).write_bytes(tower.engine)
                graph = bundle.sha256[bundle.manifest.towers[tower.name].file]
                digest = hashlib.sha256(tower.engine).hexdigest()
                facts[tower.name] = EngineTower(file, digest, len(tower.engine), graph, *tower.batches)
                if tower.min_cosine is not None:
                    cosines[tower.name] = tower.min_cosine
                cache = tower.timing_cache
            if cache:
                (work / TIMING_CACHE).write_bytes(cache)
            whole = EngineFacts(
                target=target,
                precision=precision(bundle),
                encoder_id=bundle.encoder_id,
                towers=facts,
                built_utc=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                build_s=round(time.monotonic() - started_s, 1),
                self_test=cosines if untested is None else None,
                self_test_reason=untested,
            )
            (work / FACTS).write_bytes(canonical_json(whole.to_json()))
            open_engine(bundle, work, target)  # what would be refused later is not put in place
    except OutputError as error:
        raise OutputError(
            f"{error}; to build in another place, copy the bundle: `cp -r {bundle.path} my.bundle`, then "
            "`tagclip bundle build my.bundle`, and --bundle my.bundle for the other commands"
        ) from error
    return open_engine(bundle, path, target)

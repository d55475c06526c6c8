"""Does this machine's engine give the vectors that the bundle was made with?"""

from __future__ import annotations

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.engines import Engines
from tagclip.runtime.providers import CPU


def run_probe(bundle: Bundle, *, threads: int | None = None, engine: str = CPU) -> dict[str, float]:
    """Embed the probe's crops and texts and compare with the vectors that stand beside them.

    Args:
        bundle: an opened bundle.
        threads: as in OrtEngine.
        engine: as in Engines.

    Returns:
        tower name -> the smallest cosine of its rows, in [0.999, 1].

    Raises:
        BundleSelfTestError: no probe, an unreadable one, or a cosine under 0.999.
        ConfigError, EngineError, MissingExtraError: as in Engines.
    """
    engines = Engines(bundle, engine, threads=threads)
    return {name: engines.check(name) for name in bundle.manifest.towers}

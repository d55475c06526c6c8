"""What leaves the station by itself, as the options of `tagclip station` say: events for TAK, webhooks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tagclip.runtime.errors import ConfigError
from tagclip.runtime.station.cot_feed import CotFeed, CotTarget, cot_target
from tagclip.runtime.station.station import Station
from tagclip.runtime.station.webhooks import WebhookFeed, read_secret, webhook_of


@dataclass(frozen=True)
class Out:
    """The options, by their names."""

    cot: str | None = None
    cot_all: bool = False
    cot_ca: Path | None = None
    cot_cert: Path | None = None
    cot_key: Path | None = None
    webhooks: tuple[str, ...] = ()
    webhook_secret_file: Path | None = None
    webhook_days: float = 3.0


def ways_out(out: Out) -> Callable[[Station], list[AbstractContextManager[object]]]:
    """What makes them for a station; each works while it is entered.

    Raises:
        ConfigError: an option cannot be used, or belongs to another that was not given.
    """
    target: CotTarget | None = None
    if out.cot is not None:
        target = cot_target(out.cot, out.cot_ca, out.cot_cert, out.cot_key)
    elif out.cot_all or out.cot_ca or out.cot_cert or out.cot_key:
        raise ConfigError("--cot-all, --cot-ca, --cot-cert and --cot-key belong to --cot; give it, too")
    if bool(out.webhooks) != (out.webhook_secret_file is not None):
        raise ConfigError("--webhook and --webhook-secret-file belong together; give both, or neither")
    webhooks = [webhook_of(url) for url in dict.fromkeys(out.webhooks)]
    secret = read_secret(out.webhook_secret_file) if out.webhook_secret_file else b""

    def make(station: Station) -> list[AbstractContextManager[object]]:
        feeds: list[AbstractContextManager[object]] = [
            WebhookFeed(station, webhook, secret, out.webhook_days) for webhook in webhooks
        ]
        return feeds + ([CotFeed(station, target, unreviewed=out.cot_all)] if target else [])

    return make

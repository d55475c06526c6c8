"""Bundles over HTTP: admins push and withdraw them, devices fetch what is ordered for them."""

from __future__ import annotations

from typing import Any

from tagclip.runtime.bundle_order import Order
from tagclip.runtime.errors import BundleError, OutputError
from tagclip.runtime.station.bundles import MAX_PART_BYTES
from tagclip.runtime.station.web import DEVICE, ONLY_ADMIN, Answer, Ask, Refusal, Route

_MANY = 1 << 53


def list_bundles(ask: Ask) -> Answer:
    """All that can be fetched, and for whom they are ordered."""
    return Answer({"bundles": ask.station.bundles.listed()})


def upload(ask: Ask) -> Answer:
    """A part of a file."""
    path = ask.path
    try:
        have = ask.station.bundles.upload(
            path["digest"], path["name"], _whole(ask, "offset", 0, _MANY), ask.body
        )
    except OutputError as error:
        raise Refusal(503, str(error), wait_s=60) from error
    return Answer({"bytes": have})


def push(ask: Ask) -> Answer:
    """Order what was uploaded."""
    fields = ask.fields()
    digest, devices = fields.text("digest", max_length=64), None
    if "devices" in fields.keys() and not fields.null("devices"):
        devices = fields.items("devices")
        if not all(isinstance(name, str) for name in devices):
            fields.refuse("devices", "names of devices, or null for all")
    fields.close()
    names = None if devices is None else tuple(dict.fromkeys(devices))
    try:
        order = ask.station.bundles.push_uploaded(digest, names, ask.by)
    except BundleError as error:
        raise Refusal(400, str(error)) from error
    except OutputError as error:
        raise Refusal(503, str(error), wait_s=60) from error
    return Answer(described(order), 201)


def withdraw(ask: Ask) -> Answer:
    """Order it for nobody."""
    if not ask.station.bundles.withdraw(ask.path["digest"], ask.by):
        raise Refusal(404, "there is no such bundle")
    return Answer({})


def order(ask: Ask) -> Answer:
    """The device's signed order, if there is a newer one than it has."""
    known = _whole(ask, "revision", 0, _MANY)
    found = ask.station.bundles.order_of(ask.device)
    if found is None or found[0] <= known:
        return Answer()
    return Answer(data=found[2].encode("ascii"))


def part(ask: Ask) -> Answer:
    """Bytes of a file of the device's bundle."""
    offset, most = _whole(ask, "offset", 0, _MANY), _whole(ask, "most", MAX_PART_BYTES, MAX_PART_BYTES)
    data = ask.station.bundles.part(ask.device, ask.path["digest"], ask.path["name"], offset, most)
    if data is None:
        raise Refusal(404, "no such file of a bundle is ordered for this device")
    return Answer(data=data, kind="application/octet-stream")


def described(order: Order) -> dict[str, Any]:
    """An order of a bundle, as it is told to whoever made it."""
    bundle = order.bundle
    assert bundle is not None
    return {
        "digest": bundle.digest,
        "name": bundle.name,
        "encoder_id": bundle.encoder_id,
        "bytes": bundle.bytes,
        "revision": order.revision,
        "devices": None if order.devices is None else list(order.devices),
    }


def _whole(ask: Ask, name: str, default: int, most: int) -> int:
    text = ask.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= most):
        raise Refusal(400, f"{name}: expected a whole number up to {most}, found {text[:40]!r}")
    return int(text)


_V1 = "/api/v1"

ROUTES = (
    Route("GET", f"{_V1}/bundles", ONLY_ADMIN, list_bundles, "The bundles, and for whom they are ordered."),
    Route(
        "PUT",
        f"{_V1}/bundles/{{digest}}/{{name}}",
        ONLY_ADMIN,
        upload,
        "A part of a file of a bundle, at most 1 MiB; `digest` is the SHA-256 of its SHA256SUMS.",
        query={"offset": "how many bytes of the file came before"},
        body={"type": "string", "format": "binary"},
        json_only=False,
    ),
    Route(
        "POST",
        f"{_V1}/bundles",
        ONLY_ADMIN,
        push,
        "Check a bundle that was uploaded, and order it for devices; null: for all.",
        body={
            "type": "object",
            "required": ["digest"],
            "properties": {
                "digest": {"type": "string"},
                "devices": {"type": ["array", "null"], "items": {"type": "string"}},
            },
        },
    ),
    Route("DELETE", f"{_V1}/bundles/{{digest}}", ONLY_ADMIN, withdraw, "Order a bundle for nobody."),
    Route(
        "GET",
        f"{_V1}/device/bundle",
        DEVICE,
        order,
        "The device's signed bundle order, once its revision is greater than the device's; else 204.",
        query={"revision": "of the order that the device has"},
    ),
    Route(
        "GET",
        f"{_V1}/device/bundle/{{digest}}/{{name}}",
        DEVICE,
        part,
        "Bytes of a file of the bundle that is ordered for the device.",
        query={"offset": "where to begin", "most": f"how many, at most {MAX_PART_BYTES}"},
    ),
)

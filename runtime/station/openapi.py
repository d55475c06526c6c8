"""The API's description, made out of the routes, so that it cannot say something else than they do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from tagclip.runtime.station.web import ANYONE, DEVICE, MAX_BODY_BYTES, Route

_TEXT = {"type": "string"}


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """OpenAPI 3.1, as JSON."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tagclip station",
            "version": metadata.version("tagclip"),
            "description": f"Bodies are JSON of at most {MAX_BODY_BYTES} bytes; unknown keys are refused. "
            'Every refusal is {"error": text}.',
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "__Host-tagclip"},
                "device": {"type": "http", "scheme": "bearer"},
            }
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", route.path)
    parameters = [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names]
    parameters += [
        {"name": name, "in": "query", "required": False, "description": text, "schema": _TEXT}
        for name, text in route.query.items()
    ]
    who = [route.who] if isinstance(route.who, str) else sorted(route.who)
    operation: dict[str, Any] = {
        "summary": route.summary,
        "description": f"For: {', '.join(who)}.",
        "parameters": parameters,
        "security": {ANYONE: [], DEVICE: [{"device": []}]}.get(who[0], [{"token": []}, {"session": []}]),
        "responses": {"2XX": {"description": "done"}, "4XX": {"description": "refused; error says why"}},
    }
    if route.body is not None:
        schema = {**route.body, "additionalProperties": False}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation

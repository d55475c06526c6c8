"""The page about the API, docs/api.md, from what the routes say of themselves and from nothing else.

python -m tagclip.runtime.station.api_page --out docs/api.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tagclip.runtime.files import write_atomic
from tagclip.runtime.station.openapi import describe
from tagclip.runtime.station.web import Route

INTRO = """# The station's API
Written by `python -m tagclip.runtime.station.api_page --out docs/api.md` from the table of routes that answers; do not
edit it, run it again (a test compares). `GET /api/v1/openapi.json` is the same of a running station, for programs.
[link.md](link.md) says what is promised, [admin-guide.md](admin-guide.md) how to get a user.

    tagclip query login --station https://127.0.0.1:8443 --user maria --ca ground/tls/ca.pem

leaves a token for 30 days in `~/.config/tagclip/station.json`; every request carries it:

```sh
token=$(sed -n 's/.*"token": *"\\([^"]*\\)".*/\\1/p' ~/.config/tagclip/station.json)
curl --cacert ground/tls/ca.pem -H "Authorization: Bearer $token" https://127.0.0.1:8443/api/v1/hits
```

{rules}
A name that is not listed below is refused too, in a body as behind the question mark. 401: nobody known asks; 403:
somebody who may not; 404: there is no such thing; 429 and 503: later, `Retry-After` says when. Text in `{{}}` is part
of the address. What is bold has to be given.
"""


def page(routes: Sequence[Route]) -> str:
    """The page about `routes`, Markdown."""
    document = describe(routes)
    lines = [INTRO.format(rules=document["info"]["description"])]
    sections: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            sections.setdefault(path.split("/")[3], []).extend(_route(method.upper(), path, operation))
    for name, told in sections.items():
        lines += [f"## {name.partition('.')[0].capitalize()}", *told]
    return "\n".join(lines)


def _route(method: str, path: str, operation: Mapping[str, Any]) -> list[str]:
    lines = [f"### `{method} {path}`", f"{operation['summary']} {operation['description']}", ""]
    rows = [
        (f"`?{given['name']}=`", given["description"])
        for given in operation["parameters"]
        if given["in"] == "query"
    ]
    if "requestBody" in operation:
        (content,) = operation["requestBody"]["content"].values()
        needed = content["schema"].get("required", ())
        for name, schema in content["schema"].get("properties", {}).items():
            rows.append((f"**`{name}`**" if name in needed else f"`{name}`", _kind(schema)))
    if rows:
        cells = ((left, right.replace("|", "\\|")) for left, right in rows)
        lines += ["| | |", "|---|---|", *(f"| {left} | {right} |" for left, right in cells), ""]
    return lines


def _kind(schema: Mapping[str, Any]) -> str:
    """A JSON schema in a few words; what has no words of its own is shown as JSON."""
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    limits = {
        name: value for name, value in schema.items() if name not in ("type", "description", "properties")
    }
    text = " or ".join(kinds)
    if limits:
        text += f" `{json.dumps(limits)}`"
    return f"{text}: {schema['description']}" if "description" in schema else text


def main() -> None:
    """Write the page."""
    from tagclip.runtime.station.app import ROUTES

    parser = argparse.ArgumentParser(description="Write the page about the station's API.")
    parser.add_argument("--out", type=Path, required=True)
    write_atomic(parser.parse_args().out, page(ROUTES).encode("utf-8"))


if __name__ == "__main__":
    main()

"""The file of `tagclip run --config`: YAML whose keys are the command's own options.

A value is read as the same text would be on the command line, by click, and the command line comes first. So there is
one list of options, one set of rules, and nothing that only a file can say.
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagclip.runtime.errors import ConfigError, one_line
from tagclip.runtime.logs import mask

if TYPE_CHECKING:
    import click

MAX_BYTES = 64 * 1024
_NOT_IN_FILES = {"help", "config", "show-config"}
_LINES = "tagclip.run_config"  # in the context's `meta`: parameter -> where the file names it
_ONE_VALUE = re.compile(r"[\w./+-](?:[\w./,+=@%-]|:(?=\S))*")  # what needs no quotes in YAML
_NO_VALUE = re.compile(r"~|null", re.IGNORECASE)


def use_config(context: click.Context, path: Path) -> None:
    """Make the file's values the defaults of the command; to be called before click reads its other parameters.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or has a key or a value that the command does not take; the
            message names the line.
    """
    keys = _keys(context.command)
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, node, line in _pairs(path):
        parameter = keys.get(key.replace("_", "-"))
        if parameter is None or parameter.name is None:
            raise ConfigError(f"{path}:{line}: unknown key {_shown(key)}; {_nearest(key, list(keys))}")
        if parameter.name in values:
            raise ConfigError(
                f"{path}:{line}: {key} stands in line {lines[parameter.name]} already; keep one"
            )
        values[parameter.name] = _convert(context, parameter, node, f"{path}:{line}: {key}")
        lines[parameter.name] = line
    context.default_map = values
    context.meta[_LINES] = {name: f"{path}:{line}" for name, line in lines.items()}


def show_config(context: click.Context) -> str:
    """The resolved configuration as YAML, each line saying where its value came from; users of URLs are masked.

    Args:
        context: of the running command, whose parameters click has read.
    """
    rows = []
    for key, parameter in _keys(context.command).items():
        name = parameter.name or ""
        if name not in context.params:
            continue
        value, source = context.params[name], context.get_parameter_source(name)
        origin = {
            "COMMANDLINE": "command line",
            "ENVIRONMENT": "environment",
            "DEFAULT_MAP": context.meta.get(_LINES, {}).get(name, "file"),
        }.get(source.name if source else "", "default")
        empty = value is None or value == ()
        rows.append((f"# {key}:" if empty else f"{key}: {_yaml(value)}", "not given" if empty else origin))
    width = min(max(len(text) for text, _ in rows), 60)
    return "\n".join(f"{text:<{width}}  # {origin}" for text, origin in rows)


def _keys(command: click.Command) -> dict[str, click.Parameter]:
    """Key in a file -> parameter: `max-gb` for --max-gb, `source` for the argument SOURCE."""
    found = {}
    for parameter in command.params:
        key = max(parameter.opts, key=len).lstrip("-").replace("_", "-")
        if key not in _NOT_IN_FILES:
            found[key] = parameter
    return found


def _pairs(path: Path) -> list[tuple[str, Any, int]]:
    """Key, YAML node of the value, and line of all entries."""
    import yaml

    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}; name a YAML file") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(
            f"{path}: more than {MAX_BYTES} bytes, which no configuration needs; is it the right file?"
        )
    try:
        # Only the tree: nothing in the file can make an object, and each value keeps its text and its line.
        root = yaml.compose(data.decode("utf-8"), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        # Of a quote that never ends, the end of the file is no help.
        opened = error.context_mark if (error.context or "").startswith("while scanning") else None
        mark = opened or error.problem_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(
            f"{path}{line}: not readable as YAML: {one_line(error.problem or str(error))}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else one_line(str(error))
        raise ConfigError(f"{path}: not readable as YAML: {reason}") from error
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path}:{root.start_mark.line + 1}: expected lines of `key: value`")
    pairs = []
    for key, value in root.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"{path}:{line}: expected a key such as `days`, found {key.id}")
        pairs.append((key.value, value, line))
    return pairs


def _convert(context: click.Context, parameter: click.Parameter, node: Any, where: str) -> Any:
    """What click makes of the node's text, or texts for an option that may be given several times."""
    import click
    import yaml

    several = parameter.nargs != 1 or getattr(parameter, "multiple", False)
    if isinstance(node, yaml.SequenceNode) and several:
        texts = [_text(item, where, "one value", yaml) for item in node.value]
    else:
        texts = [_text(node, where, "a list of values" if several else "one value", yaml)]
    try:
        converted = [parameter.type.convert(text, parameter, context) for text in texts]
    except click.BadParameter as error:
        expected, found = _expected(parameter), texts[0] if len(texts) == 1 else texts
        said = f"expected {expected}, found {_shown(found)}" if expected else mask(one_line(error.message))
        raise ConfigError(f"{where}: {said}") from error
    return tuple(converted) if several else converted[0]


def _text(node: Any, where: str, expected: str, yaml: Any) -> str:
    if not isinstance(node, yaml.ScalarNode):
        found = "a list" if isinstance(node, yaml.SequenceNode) else "a section"
        raise ConfigError(f"{where}: expected {expected}, found {found}")
    if node.style is None and (not node.value or _NO_VALUE.fullmatch(node.value)):
        raise ConfigError(f"{where}: expected {expected}, found nothing; give one, or take the line out")
    return str(node.value)


def _expected(parameter: click.Parameter) -> str:
    """What a parameter takes, in a few words; empty where click says it better."""
    kind = parameter.type
    choices = getattr(kind, "choices", None)
    if choices:
        return "one of " + ", ".join(map(str, choices))
    words = {
        "boolean": "true or false",
        "integer": "a whole number",
        "integer range": "a whole number",
        "float": "a number",
        "float range": "a number",
    }.get(kind.name)
    if words is None:
        return ""
    low, high = getattr(kind, "min", None), getattr(kind, "max", None)
    return (
        words + (f" from {low:g}" if low is not None else "") + (f" to {high:g}" if high is not None else "")
    )


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key.lower().replace("_", "-"), known, 1, 0.6)
    return f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"


def _shown(value: object) -> str:
    """A value out of a file for a message: it could rewrite the terminal, or be a password."""
    text = mask(repr(value))
    return text if len(text) <= 80 else text[:77] + "..."


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_yaml(item) for item in value) + "]"
    text = f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else mask(str(value))
    plain = _ONE_VALUE.fullmatch(text) and not _NO_VALUE.fullmatch(text)
    return text if plain else json.dumps(text)  # a JSON string is a YAML string

"""Writes the reference of all settings, as Markdown, from their types and docstrings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from serve_app.config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Schema = dict[str, Any]

INTRODUCTION = """\
# Configuration

Settings say how the service behaves. They are in a YAML file; what the file leaves out has its default.

<!-- This page is generated: `serve-app config reference > serve_app/docs/configuration.md`. -->

`serve_config.yaml` says how many processes run and how big they are. It names the settings file in `args.config`, by
default [`configs/local.yaml`](../../configs/local.yaml). A settings file may be short:

```yaml
model:
  name: openai:gpt-5-mini
  api_key_env: OPENAI_API_KEY
memory:
  window: 5
```

Check the files before you start. `serve-app check` prints every problem at once: where it is, what it is, what to do.
The service prints the same lines when it refuses to start.

```sh
serve-app check                       # serve_config.yaml and its settings file, while the service is stopped
serve-app check configs/local.yaml    # a settings file alone
```

## Environment variables

A settings file never contains a secret. It names an environment variable, such as `api_key_env: OPENAI_API_KEY`. The
service reads variables from the environment and, if they are missing there, from `.env` in the working directory. On a
cluster, the processes have the environment of `ray start` on their machine, not that of the shell that deploys.

| Variable | Meaning |
|---|---|
| `SERVE_APP_CONFIG` | The settings file, in place of `args.config`. |
| `SERVE_APP_MODEL`, `SERVE_APP_MODEL_BASE_URL`, `SERVE_APP_MODEL_API_KEY` | The model, in place of `model`. |
| `SERVE_APP_DATA_DIR` | The folder of the embedded stores. Default: `.serve_app`. |
| `SERVE_APP_URL` | The address at which the commands of `serve-app` find the service. |
| `SERVE_APP_KEY` | The API key that the commands of `serve-app` send. |

## Settings

`agent.max_steps` means that `max_steps` is indented below `agent`. The end of a key shows its unit: `_s` is seconds,
`_bytes` is bytes, `_mb` is megabytes. `NAME` stands for a name of your choice.
"""
NAME = "NAME"
"""Stands for a name that the user chooses, such as a tool's."""
FALLBACKS = "Each fallback has the keys of `model`, from `name` to `timeout_s`."
UNITS = {"_s": "seconds", "_bytes": "bytes", "_mb": "megabytes", "_characters": "characters", "_tokens": "tokens"}
MAX_DEFAULT_CHARACTERS = 80
BOUNDS = (("exclusiveMinimum", "over"), ("minimum", "at least"), ("exclusiveMaximum", "under"), ("maximum", "at most"))
DAY_S, HOUR_S, KIB, MIB = 86_400, 3_600, 1024, 1024 * 1024


def write_reference() -> str:
    """Return the page `configuration` of the manual."""
    schema = Settings.model_json_schema()
    return "\n".join([INTRODUCTION, *_Writer(schema["$defs"]).write_sections(schema)]).rstrip() + "\n"


class _Writer:
    """Writes the sections of a JSON schema with these definitions."""

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions

    def write_sections(self, tree: Schema) -> Iterator[str]:
        for name, value in tree["properties"].items():
            yield from self._write_section(name, self._resolve(value))

    def _write_section(self, path: str, section: Schema) -> Iterator[str]:
        """Yield the keys of a section, then the sections in it."""
        yield f"{'####' if '.' in path else '###'} {path}\n"
        yield f"{_format_text(section['description'])}\n"
        inner: list[tuple[str, Schema]] = []
        required = section.get("required", [])
        for name, value in section.get("properties", {}).items():
            yield from self._write_key(name, value, is_required=name in required)
            inner += [(f"{path}.{name}{suffix}", each) for suffix, each in self._sections_in(value)]
        if "$ref" in (extra := section.get("additionalProperties") or {}):
            inner.append((f"{path}.{NAME}", self._resolve(extra)))
        yield ""
        for name, each in inner:
            if each["title"] == "ModelEndpoint" and path == "model":
                yield f"#### {name}\n\n{FALLBACKS}\n"
            else:
                yield from self._write_section(name, each)

    def _write_key(self, name: str, value: Schema, *, is_required: bool) -> Iterator[str]:
        details = [self._format_type(value), *_format_bounds(value)]
        if unit := next((unit for suffix, unit in UNITS.items() if name.endswith(suffix)), ""):
            details[0] += f" of {unit}" if details[0] in {"number", "whole number"} else ""
        default = "required" if is_required else _format_default(name, value)
        yield f"- **`{name}`** ({', '.join([*details, default] if default else details)}):"
        if text := value.get("description"):
            yield f"  {_format_text(text, indent=2)}"

    def _format_type(self, value: Schema) -> str:
        options = [each for each in value.get("anyOf", [value]) if each.get("type") != "null"]
        return " or ".join(self._format_one_type(each) for each in options)

    def _format_one_type(self, value: Schema) -> str:
        if "$ref" in value:
            return "section"
        if "enum" in value or "const" in value:
            *first, last = (f"`{each}`" for each in value.get("enum", [value.get("const")]))
            return f"{', '.join(first)} or {last}" if first else last
        kind = value.get("type")
        if kind == "array":
            return f"list of {_plural(self._format_type(value['items']))}"
        if kind == "object":
            inner = value.get("additionalProperties")
            return f"mapping to {_plural(self._format_type(inner))}" if isinstance(inner, dict) else "mapping"
        names = {"string": "text", "boolean": "true or false", "integer": "whole number"}
        return str(value.get("format") or names.get(str(kind), kind))

    def _sections_in(self, value: Schema) -> Iterator[tuple[str, Schema]]:
        """Yield the sections that a key holds, with the end of their path."""
        for option in value.get("anyOf", [value]):
            if "$ref" in option:
                yield "", self._resolve(option)
            elif "$ref" in option.get("items", {}):
                yield "[]", self._resolve(option["items"])
            elif isinstance(inner := option.get("additionalProperties"), dict) and "$ref" in inner:
                yield f".{NAME}", self._resolve(inner)

    def _resolve(self, value: Schema) -> Schema:
        return self._definitions[value["$ref"].rpartition("/")[2]]


def _plural(kind: str) -> str:
    return kind if "`" in kind else f"{kind}s"


def _format_text(text: str, indent: int = 0) -> str:
    """Return a docstring as Markdown; in YAML, a key that is None is not set."""
    text = re.sub(r"\bNone\b", "Not set", text.strip())
    return text.replace("\n", "\n" + " " * indent) if indent else text


def _format_bounds(value: Schema) -> Iterator[str]:
    for option in value.get("anyOf", [value]):
        for name, word in BOUNDS:
            if name in option:
                yield f"{word} {_format_number(option[name])}"


def _format_default(name: str, value: Schema) -> str:
    default = value.get("default")
    if isinstance(default, dict) and "$ref" in value:
        return ""
    if default is None or default in ([], {}, ""):
        return "default: not set" if default is None else "default: empty"
    if isinstance(default, int | float) and not isinstance(default, bool):
        return f"default: `{_format_number(default, separator='')}`{_format_size(name, default)}"
    text = yaml.safe_dump(default, default_flow_style=True, width=10_000, allow_unicode=True)
    text = text.removesuffix("\n").removesuffix("\n...")
    return f"default: `{text}`" if len(text) <= MAX_DEFAULT_CHARACTERS else "default: a text for general use"


def _format_number(number: float, separator: str = ",") -> str:
    return f"{int(number):{separator}}" if number == int(number) else f"{number:g}"


def _format_size(name: str, number: float) -> str:
    """Return large times and sizes in a larger unit, too."""
    units = {"_s": ((DAY_S, "days"), (HOUR_S, "hours")), "_bytes": ((MIB, "MiB"), (KIB, "KiB"))}
    for suffix, steps in units.items():
        for size, unit in steps if name.endswith(suffix) else ():
            if number >= size and number % size == 0:
                count = int(number // size)
                return f", {count} {unit.removesuffix('s') if count == 1 else unit}"
    return ""

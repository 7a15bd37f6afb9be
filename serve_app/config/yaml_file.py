"""Reads a YAML file and knows the line of each key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from serve_app.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class YamlFile:
    """The mapping in a file, and its problems; empty if the file cannot be read."""

    path: Path
    tree: dict[str, Any] = field(default_factory=dict)
    root: yaml.Node | None = None
    problems: tuple[Problem, ...] = ()

    def where(self, *steps: object) -> str:
        """Return `file:line: section.key`.

        If the key is not in the file, the line is that of the nearest key around it.
        """
        line = _line(self.root, [str(step) for step in steps])
        place = str(self.path) if line is None else f"{self.path}:{line}"
        return f"{place}: {'.'.join(map(str, steps))}" if steps else place


def read_yaml(path: Path) -> YamlFile:
    """Read the mapping in the YAML file at `path`, or the problem of the file."""
    try:
        text = path.read_text(encoding="utf-8")
        tree, root = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except FileNotFoundError:
        problem = Problem(str(path), "no such file", f"The path is relative to the working directory, {path.cwd()}")
    except OSError as error:
        problem = Problem(str(path), f"cannot be read ({error.strerror})", "Name a readable file")
    except UnicodeDecodeError as error:
        problem = Problem(str(path), f"not UTF-8 at byte {error.start}", "Save the file as UTF-8")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        problem = Problem(
            f"{path}:{mark.line + 1}" if mark else str(path),
            f"not valid YAML ({error.problem})",
            "Look at the indentation, colons and quotes there and in the line above",
        )
    except (yaml.YAMLError, ValueError) as error:
        line = " ".join(str(error).split())
        problem = Problem(str(path), f"not valid YAML ({line})", "Correct the file")
    else:
        if isinstance(tree, dict):
            return YamlFile(path, tree, root, tuple(_find_repeated_keys(path, root)))
        if tree is None:
            return YamlFile(path)
        problem = Problem(str(path), "not a mapping of sections", "Begin with a line such as model:")
    return YamlFile(path, problems=(problem,))


def _find_repeated_keys(path: Path, root: yaml.Node | None) -> Iterator[Problem]:
    """Find the keys that stand twice in a section.

    YAML itself takes the last one and drops the first in silence.
    """
    pending: list[tuple[yaml.Node | None, str]] = [(root, "")]
    seen: set[int] = set()  # of nodes: an alias is the node of its anchor
    while pending:
        node, place = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        first_lines: dict[str, int] = {}
        for key, line, value in _children(node):
            where = f"{place}.{key}" if place else key
            pending.append((value, where))
            if key in first_lines and key != "<<":
                what = f"the key stands twice, first in line {first_lines[key]}"
                yield Problem(f"{path}:{line}: {where}", what, "Keep one, and put the contents of both into it")
            first_lines.setdefault(key, line)


def existing_path(tree: Any, steps: Sequence[Any]) -> tuple[Any, ...]:
    """Return the part of `steps` that exists in `tree`.

    For a missing key, this is the path to its section.
    """
    if not steps:
        return ()
    step, *rest = steps
    has = step in tree if isinstance(tree, dict) else isinstance(tree, list) and step in range(len(tree))
    return (step, *existing_path(tree[step], rest)) if has else ()


def _line(node: yaml.Node | None, steps: list[str]) -> int | None:
    """Return the line of the last existing step, from 1; None if there is none."""
    line = None
    for step in steps:
        child = next((each for each in _children(node) if each[0] == step), None)
        if child is None:
            break
        _, line, node = child
    return line


def _children(node: yaml.Node | None) -> list[tuple[str, int, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        return [(str(key.value), key.start_mark.line + 1, value) for key, value in node.value]
    if isinstance(node, yaml.SequenceNode):
        return [(str(index), item.start_mark.line + 1, item) for index, item in enumerate(node.value)]
    return []

"""Would the service start, and if not, why not?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve_app.config import Settings, YamlFile
    from serve_app.errors import Problem


@click.command()
@click.argument("config", type=click.Path(path_type=Path), default=Path("serve_config.yaml"))
def check(config: Path) -> None:
    """Tell what would keep the service from starting.

    Each problem is a line on stderr: where it is, what it is, how to mend it. The exit status is 1 where there are
    problems, else 0. Nothing is started or changed; stores that are named by URL are asked.

    CONFIG is a Serve file, by default serve_config.yaml, or a file of settings such as configs/local.yaml. A Serve
    file's port and data folder must be free, so check it while the service does not run.

    The environment counts: SERVE_APP_CONFIG names another file of settings, SERVE_APP_MODEL another model.
    """
    from serve_app.cli.serve_file import is_serve_file
    from serve_app.config import read_yaml

    sys.path.insert(0, str(Path.cwd()))  # where `serve run` finds a team's own tools
    source = read_yaml(config)
    found = source.problems
    if not found:
        found = tuple(_of_serve_file(source)) if is_serve_file(source) else tuple(_of_settings(source))
    for problem in found:
        click.echo(str(problem), err=True)
    if found:
        raise click.exceptions.Exit(1)
    _report(source)


def _of_serve_file(source: YamlFile) -> Iterator[Problem]:
    from serve_app.cli.serve_file import address_of, config_of, port_problems, room_problems, serve_problems
    from serve_app.deployments.bind_address import find_bind_problems
    from serve_app.preflight import problems

    settings = _settings(config_of(source))
    yield from serve_problems(source, tuple(settings.tools.groups) if settings else ())
    if settings:
        yield from room_problems(source, settings.admission)
    yield from port_problems(source)
    if settings and (address := address_of(source)):
        yield from find_bind_problems(settings, address[0], source.where("http_options", "host"))
    yield from problems(config_of(source), stopped=True)


def _settings(config: str) -> Settings | None:
    """The settings, as far as they can be read."""
    from serve_app.config import draft_settings
    from serve_app.errors import InvalidConfiguration

    try:
        return draft_settings(config).settings
    except InvalidConfiguration:
        return None


def _of_settings(source: YamlFile) -> Iterator[Problem]:
    from serve_app.preflight import problems

    yield from problems(source.path)


def _report(source: YamlFile) -> None:
    from serve_app.cli.serve_file import address_of, config_of, is_serve_file
    from serve_app.config import draft_settings

    served = is_serve_file(source)
    found = draft_settings(config_of(source) if served else source.path)
    files = [source.path, found.file.path] if served else [found.file.path]
    click.echo(f"ok: {' with '.join(map(str, files))}")
    address = address_of(source) if served else None
    rows = {**_rows(found.settings), "address": f"http://{address[0]}:{address[1]}" if address else ""}
    for name, value in rows.items():
        if value:
            click.echo(f"  {name:<10} {value}")


def _rows(settings: Settings) -> dict[str, str]:
    from serve_app.config import EMBEDDED, data_dir

    offline = " (rule-based, for trying and testing; SERVE_APP_MODEL names another)"
    embedding = settings.knowledge.embedding
    embedded = EMBEDDED in (settings.redis.url, settings.milvus.url)
    return {
        "model": settings.model.name + (offline if settings.model.name == "offline" else ""),
        "endpoint": settings.model.base_url or "",
        "fallbacks": ", ".join(each.name for each in settings.model.fallbacks),
        "tools": ", ".join([*settings.tools.by_name, "knowledge_search"]),
        "knowledge": settings.knowledge.mode + (f", {embedding.model or embedding.factory}" if embedding else ""),
        "redis": _shown(settings.redis.url),
        "milvus": _shown(settings.milvus.url),
        "standby": _shown(settings.milvus.standby or ""),
        "data": str(data_dir()) if embedded else "",
    }


def _shown(url: str) -> str:
    """Without the user and the password that a URL may carry."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

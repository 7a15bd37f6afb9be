"""`serve-app check`: finds what would keep the service from starting."""

from __future__ import annotations

import socket
import sys
from difflib import get_close_matches
from errno import EADDRINUSE
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from serve_app.config import existing_path
from serve_app.errors import Problem
from serve_app.values import KNOWLEDGE_SEARCH

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic import BaseModel

    from serve_app.config import Settings, YamlFile

IMPORT_PATH = "serve_app.app:build"
DEFAULT_SETTINGS = "configs/local.yaml"
"""The settings file if `args` does not name one."""

PORTS = range(1, 65536)

FIX = "Correct it; Ray Serve's documentation describes the file"

OTHER_REQUESTS = 50
"""Requests other than turns for which Ingress needs room."""
SERVE_DEFAULT = 5
"""Serve's default of `max_ongoing_requests`."""

DEPLOYMENTS = ("Ingress", "Agent", "Retriever", "Tools", "Stores")


@click.command()
@click.argument("config", type=click.Path(path_type=Path), default=Path("serve_config.yaml"))
def check(config: Path) -> None:
    """Find what would keep the service from starting.

    Each problem is one line on stderr: where it is, what it is, what to do. The exit status is 1 if there are
    problems, else 0. Nothing is started or changed. Stores with a URL must answer.

    CONFIG is a Serve file, by default serve_config.yaml, or a settings file such as configs/local.yaml. The port and
    the data folder of a Serve file must be free, so stop the service before you check the file.

    The environment counts: SERVE_APP_CONFIG replaces the settings file, SERVE_APP_MODEL the model.
    """
    from serve_app.config import read_yaml
    from serve_app.preflight import find_problems

    sys.path.insert(0, str(Path.cwd()))  # `serve run` imports a team's own tools from there
    file = read_yaml(config)
    problems = (*file.problems, *_check_serve_file(file)) if is_serve_file(file) else find_problems(file.path)
    for problem in problems:
        click.echo(str(problem), err=True)
    if problems:
        raise click.exceptions.Exit(1)
    _report(file)


def _check_serve_file(file: YamlFile) -> Iterator[Problem]:
    from serve_app.preflight import find_bind_problems, find_problems

    settings = _try_settings(settings_path(file))
    yield from find_serve_problems(file, tuple(settings.tools.groups) if settings else ())
    if settings:
        yield from find_capacity_problems(file, settings)
    yield from find_port_problems(file)
    if settings and (address := serve_address(file)):
        yield from find_bind_problems(settings, address[0], file.where("http_options", "host"))
    yield from find_problems(settings_path(file), stopped=True)


def _try_settings(path: str) -> Settings | None:
    """Return the settings without their wrong keys; None if `.env` is unreadable."""
    from serve_app.config import draft_settings
    from serve_app.errors import InvalidConfiguration

    try:
        return draft_settings(path).settings
    except InvalidConfiguration:
        return None


def _report(file: YamlFile) -> None:
    from serve_app.config import draft_settings

    served = is_serve_file(file)
    draft = draft_settings(settings_path(file) if served else file.path)
    files = [file.path, draft.file.path] if served else [draft.file.path]
    click.echo(f"ok: {' with '.join(map(str, files))}")
    address = serve_address(file) if served else None
    rows = {**_rows(draft.settings), "address": f"http://{address[0]}:{address[1]}" if address else ""}
    for name, value in rows.items():
        if value:
            click.echo(f"  {name:<10} {value}")


def _rows(settings: Settings) -> dict[str, str]:
    from serve_app.config import EMBEDDED, data_dir

    offline = " (built-in, for tests; SERVE_APP_MODEL chooses another)"
    embedding = settings.knowledge.embedding
    embedded = EMBEDDED in (settings.redis.url, settings.milvus.url)
    return {
        "model": settings.model.name + (offline if settings.model.name == "offline" else ""),
        "endpoint": settings.model.base_url or "",
        "fallbacks": ", ".join(each.name for each in settings.model.fallbacks),
        "tools": ", ".join([*settings.tools.by_name, KNOWLEDGE_SEARCH]),
        "knowledge": settings.knowledge.mode + (f", {embedding.model or embedding.factory}" if embedding else ""),
        "redis": _without_login(settings.redis.url),
        "milvus": _without_login(settings.milvus.url),
        "standby": _without_login(settings.milvus.standby or ""),
        "data": str(data_dir()) if embedded else "",
    }


def _without_login(url: str) -> str:
    """Return the URL without its user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def is_serve_file(file: YamlFile) -> bool:
    """Whether the file is a Serve file, in contrast to a settings file."""
    return not file.tree.keys().isdisjoint({"applications", "http_options", "proxy_location"})


def settings_path(file: YamlFile) -> str:
    """Return the settings file that the Serve file names."""
    arguments = _application(file)[1].get("args")
    path = arguments.get("config") if isinstance(arguments, dict) else None
    return path if isinstance(path, str) else DEFAULT_SETTINGS


def find_serve_problems(file: YamlFile, groups: Iterable[str] = ()) -> Iterator[Problem]:
    """Find what Serve would reject or ignore, and tool groups without an entry."""
    from ray.serve.schema import HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

    yield from _find_rejected(file, (), ServeDeploySchema)
    index, application = _application(file)
    if not application:
        fix = f"Add an application with import_path: {IMPORT_PATH}"
        yield Problem(file.where("applications"), "no application of this service", fix)
        return
    yield from _find_unknown(file, (), ServeDeploySchema.model_fields)
    yield from _find_unknown(file, ("http_options",), HTTPOptionsSchema.model_fields)
    yield from _find_unknown(file, ("applications", index), ServeApplicationSchema.model_fields)
    yield from _find_unknown(file, ("applications", index, "args"), ("config",))
    steps = ("applications", index, "deployments")
    deployments = [each if isinstance(each, dict) else {} for each in application.get("deployments") or ()]
    yield from _check_names(
        file, steps, [each.get("name") for each in deployments], [f"Tools-{group}" for group in groups]
    )
    for number, deployment in enumerate(deployments):
        yield from _check_deployment(file, (*steps, number), deployment)


def _check_names(
    file: YamlFile, steps: tuple[str | int, ...], names: list[Any], groups: list[str]
) -> Iterator[Problem]:
    known = (*DEPLOYMENTS, *groups)
    for number, name in enumerate(names):
        if isinstance(name, str) and name not in known:
            where = file.where(*steps, number, "name")
            yield Problem(where, f"there is no deployment {name}", _suggest(name, known))
    for name in groups:
        if name not in names:
            fix = f"Copy the entry of Tools and name it {name}; the default serves only five calls at a time"
            yield Problem(file.where(*steps), f"no entry for {name}, which tools.groups requires", fix)


def _check_deployment(file: YamlFile, steps: tuple[str | int, ...], deployment: dict[str, Any]) -> Iterator[Problem]:
    from ray.serve.config import AutoscalingConfig
    from ray.serve.schema import DeploymentSchema

    yield from _find_unknown(file, steps, DeploymentSchema.model_fields)
    if isinstance(deployment.get("autoscaling_config"), dict):
        scaling = (*steps, "autoscaling_config")
        yield from _find_rejected(file, scaling, AutoscalingConfig)
        yield from _find_unknown(file, scaling, AutoscalingConfig.model_fields)


def find_capacity_problems(file: YamlFile, settings: Settings) -> Iterator[Problem]:
    """Find whether Ingress or Agent accepts fewer requests than its turns and other requests."""
    index, application = _application(file)
    admission, runs = settings.admission, settings.agent.max_runs
    turns = "admission.max_turns" if admission.max_turns else "agent.max_runs"
    needs = {
        "Ingress": (
            (admission.max_turns or runs) + admission.max_waiting + OTHER_REQUESTS,
            f"{turns}, admission.max_waiting and {OTHER_REQUESTS} others",
        ),
        "Agent": (runs + OTHER_REQUESTS, f"agent.max_runs and {OTHER_REQUESTS} others"),
    }
    for number, deployment in enumerate(application.get("deployments") or ()):
        if not isinstance(deployment, dict) or deployment.get("name") not in needs:
            continue
        accepted = deployment.get("max_ongoing_requests", SERVE_DEFAULT)
        needed, parts = needs[deployment["name"]]
        if isinstance(accepted, int) and accepted < needed:
            where = file.where("applications", index, "deployments", number, "max_ongoing_requests")
            what = f"{accepted} requests are fewer than {parts}"
            yield Problem(where, what, f"Make it at least {needed}; otherwise Serve rejects turns in plain text")


def serve_address(file: YamlFile) -> tuple[str, int] | None:
    """Return the host and port of Serve, or None if they are wrong."""
    from pydantic import ValidationError
    from ray.serve.schema import HTTPOptionsSchema

    try:
        options = HTTPOptionsSchema.model_validate(file.tree.get("http_options", {}))
    except ValidationError:
        return None
    return options.host, options.port


def find_port_problems(file: YamlFile) -> Iterator[Problem]:
    """Find whether Serve cannot listen on its port, perhaps because the service is already running."""
    address = serve_address(file)
    if address is None:
        return
    host, port = address
    where = file.where("http_options", "port")
    if port not in PORTS:
        yield Problem(where, f"{port} is not a port", f"Choose one from {PORTS.start} to {PORTS.stop - 1}")
        return
    try:
        family, kind, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignore connections that just closed
            probe.bind(target)
    except OSError as error:
        if error.errno == EADDRINUSE:
            fix = "Stop the program that listens there, perhaps this service, or choose another port"
            yield Problem(where, f"port {port} of {host} is in use", fix)
        else:
            yield Problem(where, f"nothing can listen on {host}:{port} ({error.strerror})", "Choose another address")


def _application(file: YamlFile) -> tuple[int, dict[str, Any]]:
    applications = file.tree.get("applications")
    for index, each in enumerate(applications if isinstance(applications, list) else ()):
        if isinstance(each, dict) and each.get("import_path") == IMPORT_PATH:
            return index, each
    return 0, {}


def _find_rejected(file: YamlFile, steps: tuple[str | int, ...], schema: type[BaseModel]) -> Iterator[Problem]:
    from pydantic import ValidationError

    try:
        schema.model_validate(_at(file, steps))
    except AttributeError:  # Serve's validators assume that a section is a mapping
        yield Problem(file.where(*steps), "a section does not have the form that Serve expects", FIX)
    except ValidationError as error:
        messages: dict[tuple[Any, ...], str] = {}
        for each in error.errors():
            loc = (*steps, *each["loc"])
            # A value of several allowed types gives one error for each type: show the first one.
            messages.setdefault(loc if each["type"] == "missing" else existing_path(file.tree, loc), each["msg"])
        for loc, message in messages.items():
            what = message.removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
            yield Problem(file.where(*loc), what, FIX)


def _find_unknown(file: YamlFile, steps: tuple[str | int, ...], known: Iterable[str]) -> Iterator[Problem]:
    """Find unknown keys, which Serve accepts and ignores."""
    node = _at(file, steps)
    for key in node if isinstance(node, dict) else ():
        if key not in known:
            yield Problem(file.where(*steps, key), "unknown key, which Serve would ignore", _suggest(str(key), known))


def _at(file: YamlFile, steps: tuple[str | int, ...]) -> Any:
    """Return the value at `steps`, or an empty section."""
    node: Any = file.tree
    for step in steps:
        node = node[step] if isinstance(step, int) or step in node else {}
    return node


def _suggest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else f"Valid names: {', '.join(known)}"

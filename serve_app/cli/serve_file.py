"""What does a Serve configuration file say, and what would Serve refuse in it?"""

from __future__ import annotations

import socket
from difflib import get_close_matches
from errno import EADDRINUSE
from typing import TYPE_CHECKING, Any

from serve_app.config import existing_path
from serve_app.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic import BaseModel

    from serve_app.config import AdmissionSettings, YamlFile

IMPORT_PATH = "serve_app.app:build"
CONFIG = "configs/local.yaml"
"""What the builder takes where `args` names no file."""

PORTS = range(1, 65536)

MEND = "Mend it; Ray Serve's documentation describes the file"

ROOM = 50
"""Requests of other kinds that the ingress takes beside its turns."""
SERVES_OWN = 5
"""What Serve takes where `max_ongoing_requests` is not said."""

DEPLOYMENTS = ("Ingress", "Agent", "Retriever", "Tools", "Stores")


def is_serve_file(source: YamlFile) -> bool:
    """Whether the file is meant for Serve, and not a file of settings."""
    return not source.tree.keys().isdisjoint({"applications", "http_options", "proxy_location"})


def config_of(source: YamlFile) -> str:
    """The file of settings that the application is built from."""
    arguments = _application(source)[1].get("args")
    named = arguments.get("config") if isinstance(arguments, dict) else None
    return named if isinstance(named, str) else CONFIG


def serve_problems(source: YamlFile, groups: Iterable[str] = ()) -> Iterator[Problem]:
    """What Serve would refuse, the names it would silently pass over, and the `groups` of tools without an entry."""
    from ray.serve.schema import HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

    yield from _refused(source, (), ServeDeploySchema)
    index, application = _application(source)
    if not application:
        mend = f"Give one the line import_path: {IMPORT_PATH}"
        yield Problem(source.where("applications"), "no application of this service", mend)
        return
    yield from _unknown(source, (), ServeDeploySchema.model_fields)
    yield from _unknown(source, ("http_options",), HTTPOptionsSchema.model_fields)
    yield from _unknown(source, ("applications", index), ServeApplicationSchema.model_fields)
    yield from _unknown(source, ("applications", index, "args"), ("config",))
    steps = ("applications", index, "deployments")
    deployments = [each if isinstance(each, dict) else {} for each in application.get("deployments") or ()]
    yield from _names(source, steps, [each.get("name") for each in deployments], [f"Tools-{group}" for group in groups])
    for number, deployment in enumerate(deployments):
        yield from _deployment(source, (*steps, number), deployment)


def _names(source: YamlFile, steps: tuple[str | int, ...], names: list[Any], groups: list[str]) -> Iterator[Problem]:
    known = (*DEPLOYMENTS, *groups)
    for number, name in enumerate(names):
        if isinstance(name, str) and name not in known:
            where = source.where(*steps, number, "name")
            yield Problem(where, f"there is no deployment {name}", _nearest(name, known))
    for name in groups:
        if name not in names:
            mend = f"Copy that of Tools and name it {name}; without one, five calls at a time is all that it takes"
            yield Problem(source.where(*steps), f"no entry for {name}, which tools.groups makes", mend)


def _deployment(source: YamlFile, steps: tuple[str | int, ...], deployment: dict[str, Any]) -> Iterator[Problem]:
    from ray.serve.config import AutoscalingConfig
    from ray.serve.schema import DeploymentSchema

    yield from _unknown(source, steps, DeploymentSchema.model_fields)
    if isinstance(deployment.get("autoscaling_config"), dict):
        scaling = (*steps, "autoscaling_config")
        yield from _refused(source, scaling, AutoscalingConfig)
        yield from _unknown(source, scaling, AutoscalingConfig.model_fields)


def room_problems(source: YamlFile, admission: AdmissionSettings) -> Iterator[Problem]:
    """Whether Ingress takes as many requests as admission lets turns in and wait, and others beside them."""
    index, application = _application(source)
    wanted = admission.max_turns + admission.max_waiting + ROOM
    for number, deployment in enumerate(application.get("deployments") or ()):
        if not isinstance(deployment, dict) or deployment.get("name") != "Ingress":
            continue
        taken = deployment.get("max_ongoing_requests", SERVES_OWN)
        if isinstance(taken, int) and taken < wanted:
            where = source.where("applications", index, "deployments", number, "max_ongoing_requests")
            what = f"{taken} requests are fewer than the turns that admission lets in and wait, and {ROOM} others"
            yield Problem(where, what, f"Make it {wanted} at least, or Serve refuses turns in plain text")


def address_of(source: YamlFile) -> tuple[str, int] | None:
    """Where Serve would listen; None where the file is wrong about it."""
    from pydantic import ValidationError
    from ray.serve.schema import HTTPOptionsSchema

    try:
        options = HTTPOptionsSchema.model_validate(source.tree.get("http_options", {}))
    except ValidationError:
        return None
    return options.host, options.port


def port_problems(source: YamlFile) -> Iterator[Problem]:
    """Whether Serve could listen where the file says; a service that runs already is a taken port, too."""
    address = address_of(source)
    if address is None:
        return
    host, port = address
    where = source.where("http_options", "port")
    if port not in PORTS:
        yield Problem(where, f"{port} is not a port", f"Choose one from {PORTS.start} to {PORTS.stop - 1}")
        return
    try:
        family, kind, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that just closed do not count
            probe.bind(target)
    except OSError as error:
        if error.errno == EADDRINUSE:
            mend = "Stop what listens there, perhaps this very service, or choose another port"
            yield Problem(where, f"port {port} of {host} is taken", mend)
        else:
            yield Problem(where, f"nothing can listen on {host}:{port} ({error.strerror})", "Choose another address")


def _application(source: YamlFile) -> tuple[int, dict[str, Any]]:
    applications = source.tree.get("applications")
    for index, each in enumerate(applications if isinstance(applications, list) else ()):
        if isinstance(each, dict) and each.get("import_path") == IMPORT_PATH:
            return index, each
    return 0, {}


def _refused(source: YamlFile, steps: tuple[str | int, ...], schema: type[BaseModel]) -> Iterator[Problem]:
    from pydantic import ValidationError

    try:
        schema.model_validate(_at(source, steps))
    except AttributeError:  # Serve's validators take for granted that a section is one
        yield Problem(source.where(*steps), "a section is not of the form that Serve takes", MEND)
    except ValidationError as error:
        found: dict[tuple[Any, ...], str] = {}
        for each in error.errors():
            loc = (*steps, *each["loc"])
            # Each way to read a value that may be of several types is refused on its own: the first one is told.
            found.setdefault(loc if each["type"] == "missing" else existing_path(source.tree, loc), each["msg"])
        for loc, message in found.items():
            what = message.removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
            yield Problem(source.where(*loc), what, MEND)


def _unknown(source: YamlFile, steps: tuple[str | int, ...], known: Iterable[str]) -> Iterator[Problem]:
    """Serve accepts any key, for the sake of newer versions, and ignores those it does not know."""
    node = _at(source, steps)
    for key in node if isinstance(node, dict) else ():
        if key not in known:
            yield Problem(source.where(*steps, key), "unknown key, which Serve would ignore", _nearest(str(key), known))


def _at(source: YamlFile, steps: tuple[str | int, ...]) -> Any:
    """What stands there; an empty section where nothing does."""
    node: Any = source.tree
    for step in steps:
        node = node[step] if isinstance(step, int) or step in node else {}
    return node


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else f"Known are: {', '.join(known)}"

"""Builds the Serve application: the graph of deployments."""

import logging

import ray
from pydantic import BaseModel
from ray.serve import Application

from serve_app import preflight
from serve_app.config import EMBEDDED, Settings, data_dir, load_settings
from serve_app.deployments.agent import Agent
from serve_app.deployments.embedded_stores import choose_ports
from serve_app.deployments.ingress import Ingress
from serve_app.deployments.ray_adapter import get_serve_host
from serve_app.deployments.retriever import Retriever
from serve_app.deployments.stores import StoresDeployment, require_single_node
from serve_app.deployments.tools import bind_tool_groups
from serve_app.errors import InvalidConfiguration, Problem

logger = logging.getLogger("serve_app")


class Arguments(BaseModel):
    """The `args` of `serve_config.yaml`."""

    config: str = "configs/local.yaml"


def build(arguments: Arguments) -> Application:
    """Build the graph: Ingress -> Agent -> Retriever and Tools, and embedded Stores.

    Raises:
        InvalidConfiguration: contains every problem. Each one is also logged in a line.
    """
    _raise_problems(preflight.find_problems(arguments.config))
    settings = load_settings(arguments.config)
    _raise_problems(tuple(preflight.find_bind_problems(settings, get_serve_host(), "http_options.host")))
    settings, stores = _embed_stores(settings)
    retriever = Retriever.bind(settings, stores)
    tools = bind_tool_groups(settings)
    agent = Agent.bind(settings, retriever, tools)
    return Ingress.bind(settings, agent, retriever, tools)


def _raise_problems(problems: tuple[Problem, ...]) -> None:
    if problems:
        for line in map(str, problems):
            logger.error(line)
        raise InvalidConfiguration(problems)


def _embed_stores(settings: Settings) -> tuple[Settings, Application | None]:
    """Return the settings with the addresses of embedded stores, and the deployment that runs them."""
    redis, milvus = settings.redis.url == EMBEDDED, settings.milvus.url == EMBEDDED
    if not redis and not milvus:
        return settings, None
    if ray.is_initialized():
        require_single_node(sum(node["Alive"] for node in ray.nodes()))
    folder = data_dir()
    ports = choose_ports(folder)
    update = {
        "redis": settings.redis.model_copy(update={"url": f"redis://127.0.0.1:{ports.redis}"} if redis else {}),
        "milvus": settings.milvus.model_copy(update={"url": f"http://127.0.0.1:{ports.milvus}"} if milvus else {}),
    }
    stores = StoresDeployment.bind(folder, ports, settings.observability, redis=redis, milvus=milvus)
    return settings.model_copy(update=update), stores

"""The program `serve-app` and its commands."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from serve_app.errors import ServeAppError

COMMANDS = {
    "check": "check",
    "ingest": "ingest",
    "chat": "chat",
    "sessions": "reports",
    "logs": "reports",
    "feedback": "reports",
    "fault": "fault",
    "loadtest": "loadtest",
    "keys": "keys",
    "tenants": "keys",
    "config": "docs",
    "docs": "docs",
}
"""Command -> its module in `serve_app.cli`."""


class Commands(click.Group):
    """Imports a command at its first use, and shows any error in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - likewise
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"serve_app.cli.{COMMANDS[cmd_name]}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except ServeAppError as error:
            raise click.ClickException(str(error)) from error
        except Exception as error:
            if ctx.params["debug"]:
                raise
            what = f"unexpected {type(error).__name__}: {error}"
            raise click.ClickException(f"{what}; 'serve-app --debug …' shows the traceback") from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an unexpected error.")
@click.version_option(package_name="serve-app", prog_name="serve-app")
def main(*, debug: bool) -> None:
    """Serve a LangChain agent: check the configuration, add documents, talk to the service.

    To begin, in this order:

    \b
      serve-app check                 check that the service can start
      serve run serve_config.yaml     start it (in another terminal)
      serve-app ingest docs/          add documents
      serve-app chat                  talk to the agent

    To operate it:

    \b
      serve-app logs --run ID         show what happened in one run
      serve-app sessions              list the largest conversations
      serve-app feedback              list what users think of the answers
      serve-app keys                  create and revoke API keys
      serve-app tenants               set the rate limits of a tenant
      serve-app fault                 make something fail, to test an outage
      serve-app loadtest              measure how fast it answers at a rate

    To read:

    \b
      serve-app docs [TOPIC]          the manual
      serve-app config reference      all settings, with default and reason
    """

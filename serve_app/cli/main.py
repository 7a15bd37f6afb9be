"""Which commands does `serve-app` have, and how does one end?"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from serve_app.errors import ServeAppError

COMMANDS = ("check", "ingest", "chat", "sessions", "logs", "feedback", "fault", "keys", "tenants")


class Commands(click.Group):
    """Imports a command's module when it is asked for; whatever a command raises ends as one line and status 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - likewise
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"serve_app.cli.{cmd_name}"), cmd_name)
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
            raise click.ClickException(f"{what}; 'serve-app --debug …' shows where it comes from") from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an unexpected error.")
@click.version_option(package_name="serve-app", prog_name="serve-app")
def main(*, debug: bool) -> None:
    """Serve a LangChain agent: check a configuration, fill the knowledge base, talk to the service.

    A first round, in this order:

    \b
      serve-app check                 is everything in place?
      serve run serve_config.yaml     start the service (in another terminal)
      serve-app ingest docs/          give it documents
      serve-app chat                  ask it something
      serve-app sessions              what do its conversations take up?
      serve-app logs --run ID         what happened in one run?
      serve-app feedback              what did users think of its answers?

    \b
      serve-app fault                 have something fail on purpose, to rehearse it
      serve-app keys                  who may come in?
      serve-app tenants               how much may each tenant ask for?
    """

"""``queue list`` and ``profile list``."""

import asyncio
from typing import Annotated

import typer

from sparkbroker.broker.cli.context import OutputFormat, globals_of

queue_app = typer.Typer(help="Shares of the capacity.", no_args_is_help=True)
profile_app = typer.Typer(help="What can be asked for by name.", no_args_is_help=True)

OutputOption = Annotated[OutputFormat | None, typer.Option("-o", "--output", help="For people, or for programs.")]


@queue_app.callback()
def _queue() -> None:
    """Shares of the capacity."""


@profile_app.callback()
def _profile() -> None:
    """What can be asked for by name."""


@queue_app.command("list")
def queue_list(context: typer.Context, output: OutputOption = None) -> None:
    """List the queues that you may use, with what they hold."""
    from sparkbroker.broker.cli import listing

    asyncio.run(listing.queues(globals_of(context, output)))


@profile_app.command("list")
def profile_list(context: typer.Context, output: OutputOption = None) -> None:
    """List the profiles that you may use, with what they give by default."""
    from sparkbroker.broker.cli import listing

    asyncio.run(listing.profiles(globals_of(context, output)))

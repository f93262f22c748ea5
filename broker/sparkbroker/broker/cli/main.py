"""Puts the commands together, and turns every error into one message and an exit status."""

import contextlib
import os
import sys
from typing import Annotated, NoReturn

import typer

from sparkbroker.broker.cli import exit_codes
from sparkbroker.broker.cli.commands_admin import doctor, serve, token_app, version
from sparkbroker.broker.cli.commands_lease import lease_app
from sparkbroker.broker.cli.commands_list import profile_app, queue_app
from sparkbroker.broker.cli.commands_run import RUN_SETTINGS, run
from sparkbroker.broker.cli.context import Globals, OutputFormat
from sparkbroker.broker.cli.errors import report
from sparkbroker.client.visible import VisibleText

app = typer.Typer(
    name="sparkbroker",
    help="Lease real Spark sessions from a broker, or be the broker.",
    epilog=exit_codes.EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _globals(
    context: typer.Context,
    url: Annotated[
        str,
        typer.Option(
            help="The broker: unix:///path/broker.sock, grpc://host:port, or with TLS grpcs://host:port. Default: "
            "SPARKBROKER_URL, then the client's configuration file, then the default socket.",
        ),
    ] = "",
    output: Annotated[OutputFormat, typer.Option("-o", "--output", help="For people, or for programs.")] = (
        OutputFormat.TABLE
    ),
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and exit.")
    ] = False,
) -> None:
    context.obj = Globals(url=url or None, output=output)


app.command(epilog=exit_codes.EPILOG)(serve)
app.command(context_settings=RUN_SETTINGS, epilog=exit_codes.EPILOG)(run)
app.add_typer(lease_app, name="lease")
app.add_typer(queue_app, name="queue")
app.add_typer(profile_app, name="profile")
app.add_typer(token_app, name="token")
app.command()(doctor)
app.command()(version)


def main() -> NoReturn:
    """The entry point. Never returns."""
    # Once, and before anything is written: no command can forget that it shows what others have written.
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is not None:  # it may have been closed
            setattr(sys, name, VisibleText(stream))
    try:
        app()
    except BrokenPipeError:
        # Whoever read stdout has gone (``| head``): not an error, and nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = exit_codes.OK
    except KeyboardInterrupt:
        code = exit_codes.SIGNAL_BASE + 2
    except Exception as error:  # noqa: BLE001 (the last place: told, and the exit status says it)
        code = report(error)
    with contextlib.suppress(OSError, AttributeError):
        sys.stdout.flush()
    sys.exit(code)

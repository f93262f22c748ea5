"""``serve``, ``token new``, ``doctor``, ``version``: what needs no broker, or is one."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from sparkbroker.broker.cli.context import OutputFormat, globals_of
from sparkbroker.broker.cli.exit_codes import FAILED, Exit

token_app = typer.Typer(help="Tokens for brokers that listen on TCP.", no_args_is_help=True)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="The configuration file. Default: $SPARKBROKER_CONFIG, $XDG_CONFIG_HOME/sparkbroker/broker.toml, "
        "/etc/sparkbroker/broker.toml, else built-in defaults.",
    ),
]
OutputOption = Annotated[OutputFormat | None, typer.Option("-o", "--output", help="For people, or for programs.")]


def serve(
    config: ConfigOption = None,
    check_config: Annotated[bool, typer.Option("--check-config", help="Only say whether it can be used.")] = False,
    state_folder: Annotated[Path | None, typer.Option(help="Instead of store.state_folder.")] = None,
    listen: Annotated[
        list[str] | None, typer.Option(help="Instead of server.listen: unix:PATH or tcp://HOST:PORT; repeatable.")
    ] = None,
    embedded: Annotated[bool, typer.Option(hidden=True)] = False,
    parent_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Be the broker, until SIGTERM or SIGINT. Sessions outlive it; the next one adopts them."""
    from sparkbroker.broker.cli import serving

    if check_config:
        print(serving.describe_config(config, os.environ, state_folder, listen))
        return
    if embedded:
        if parent_fd is None or state_folder is None:
            raise typer.BadParameter("--embedded needs --parent-fd and --state-folder")
        serving.serve_embedded(config, os.environ, state_folder, parent_fd)
        return
    serving.serve(config, os.environ, state_folder, listen)


@token_app.command("new")
def token_new(
    principal: Annotated[str, typer.Argument(help="Who presents it.")],
    operator: Annotated[bool, typer.Option("--operator", help="May see and release everyone's leases.")] = False,
    append: Annotated[
        Path | None, typer.Option(help="Append the entry to this token file, which is made if there is none.")
    ] = None,
) -> None:
    """Make a token. The token goes to stdout, once; its entry for the token file to stderr or into the file."""
    from sparkbroker.broker.cli import tokens

    token, entry = tokens.make(principal, operator=operator)
    if append is None:
        print(f"# for the broker's token file (server.tokens):\n{entry}", file=sys.stderr)
    else:
        tokens.append(append, entry)
        print(f"added {principal} to {append}", file=sys.stderr)
    print(token)


def doctor(context: typer.Context, config: ConfigOption = None, output: OutputOption = None) -> None:
    """Say what this machine lacks to run Spark sessions, and how to get it."""
    from sparkbroker.broker.cli import doctor as checks
    from sparkbroker.broker.cli.doctor_finding import Status
    from sparkbroker.broker.cli.doctor_output import show

    options = globals_of(context, output)
    findings = checks.examine(config, os.environ, options.url)
    show(findings, json_output=options.json)
    if any(finding.status is Status.MISSING for finding in findings):
        raise Exit(FAILED)


def version() -> None:
    """Print the version."""
    from sparkbroker.client._version import __version__

    print(__version__)

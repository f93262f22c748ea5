"""``lease list|get|watch|logs|release``."""

import asyncio
from typing import Annotated

import typer

from sparkbroker.broker.cli.context import OutputFormat, globals_of

lease_app = typer.Typer(help="Look after leases.", no_args_is_help=True)

OutputOption = Annotated[OutputFormat | None, typer.Option("-o", "--output", help="For people, or for programs.")]
NameArgument = Annotated[str, typer.Argument(help="The lease: leases/ID, or the ID.")]
FilterOption = Annotated[
    str, typer.Option("--filter", help='Such as: state=QUEUED AND queue=etl AND labels.team=x AND key="a/b".')
]


@lease_app.command("list")
def lease_list(
    context: typer.Context,
    selection: FilterOption = "",
    everything: Annotated[bool, typer.Option("--all", help="Also leases that have ended.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 100,
    output: OutputOption = None,
) -> None:
    """List leases: yours, or, to an operator, everyone's."""
    from sparkbroker.broker.cli import listing

    asyncio.run(listing.leases(globals_of(context, output), selection, everything=everything, limit=limit))


@lease_app.command("get")
def lease_get(context: typer.Context, name: NameArgument, output: OutputOption = None) -> None:
    """Show one lease with all its details."""
    from sparkbroker.broker.cli import listing

    asyncio.run(listing.lease(globals_of(context, output), name))


@lease_app.command("watch")
def lease_watch(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="One lease, until it has ended. Default: all, for ever.")] = None,
    selection: FilterOption = "",
    output: OutputOption = None,
) -> None:
    """Follow what happens to leases; -o json prints one object a line."""
    from sparkbroker.broker.cli import following

    if name is not None and selection:
        raise typer.BadParameter(
            "it selects among all leases: leave out either NAME or --filter", param_hint="--filter"
        )
    options = globals_of(context, output)
    asyncio.run(following.all_leases(options, selection) if name is None else following.one_lease(options, name))


@lease_app.command("logs")
def lease_logs(
    context: typer.Context,
    name: NameArgument,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the driver has ended.")] = False,
    tail: Annotated[int, typer.Option(min=0, max=10_000, help="Begin so many lines before the end. 0: all.")] = 0,
    attempt: Annotated[int, typer.Option(min=0, help="The driver of this attempt. 0: the newest.")] = 0,
    executors: Annotated[
        bool, typer.Option("--executors", help="Also its executors' logs; each line begins with whose it is.")
    ] = False,
) -> None:
    """Print a driver's log, also of a lease that has ended."""
    from sparkbroker.broker.cli import following

    work = following.all_logs if executors else following.logs
    asyncio.run(work(globals_of(context), name, follow=follow, tail=tail, attempt=attempt))


@lease_app.command("release")
def lease_release(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="leases/ID, or the ID.")],
    message: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="For operators: don't wait for what can't be confirmed gone, such as pods on a dead node. What runs there "
            "may go on: end the node first.",
        ),
    ] = False,
    output: OutputOption = None,
) -> None:
    """Give leases back, whoever is attached to them. A lease that has ended already is no error."""
    from sparkbroker.broker.cli import listing

    work = listing.force_release if force else listing.release
    asyncio.run(work(globals_of(context, output), names, message))

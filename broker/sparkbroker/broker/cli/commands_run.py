"""The options of ``run``."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from sparkbroker.broker.cli.context import globals_of
from sparkbroker.broker.cli.exit_codes import USAGE, Exit

# What follows the command's name is the command's, whatever it looks like.
RUN_SETTINGS: Final[dict[str, Any]] = {"allow_interspersed_args": False}


def run(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="What to run, after --.")],
    profile: Annotated[str | None, typer.Option(help="What to ask for, by name.")] = None,
    queue: Annotated[str | None, typer.Option(help="The share of the capacity to take it from.")] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="The driver's cores.")] = None,
    memory: Annotated[str | None, typer.Option(help='The driver\'s heap, such as "2g".')] = None,
    executors: Annotated[str | None, typer.Option(help='How many: "4", or fewest and most, "2:8".')] = None,
    executor_cores: Annotated[int | None, typer.Option(min=1, help="Cores of each executor.")] = None,
    executor_memory: Annotated[str | None, typer.Option(help="Heap of each executor.")] = None,
    mode: Annotated[
        str | None, typer.Option(help="connect: the broker runs the driver. local: the command does.")
    ] = None,
    conf: Annotated[list[str] | None, typer.Option(help="K=V of Spark's configuration; repeatable.")] = None,
    properties_file: Annotated[Path | None, typer.Option(help="Spark's configuration; --conf wins.")] = None,
    py_files: Annotated[
        list[str] | None, typer.Option(help="Modules (.py, .zip, .egg) for the command and its Python functions.")
    ] = None,
    packages: Annotated[list[str] | None, typer.Option(help="Maven coordinates.")] = None,
    jars: Annotated[list[str] | None, typer.Option(help="Paths on the broker's machine, or URLs.")] = None,
    priority: Annotated[int | None, typer.Option(help="Within the queue; 0 is normal, more is sooner.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="K=V, for filters; repeatable.")] = None,
    key: Annotated[str | None, typer.Option(help="Your own name for the lease.")] = None,
    on_existing: Annotated[
        str | None, typer.Option(help="When the key has a live lease: fail, reattach or replace.")
    ] = None,
    acquire_timeout: Annotated[str | None, typer.Option(help='Give up waiting after, such as "10m".')] = None,
    max_duration: Annotated[str | None, typer.Option(help='The lease ends after, such as "2h".')] = None,
    config: Annotated[Path | None, typer.Option(help="The configuration of an embedded broker.")] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
) -> None:
    """Run a command with a Spark session of its own; lists may be repeated or separated by commas.

    The command finds SPARK_REMOTE (or, with --mode local, PYSPARK_SUBMIT_ARGS) in its environment, so that
    SparkSession.builder.getOrCreate() opens the session. Signals and the exit status pass through. Whatever happens,
    the lease is released. Without a configured or running broker, one is started for as long as the command runs.
    """
    from sparkbroker.broker.cli import run as running
    from sparkbroker.broker.cli.run_options import RunOptions, make_ask

    ask, files = make_ask(
        {
            "profile": profile,
            "queue": queue,
            "cores": cores,
            "memory": memory,
            "executors": executors,
            "executor_cores": executor_cores,
            "executor_memory": executor_memory,
            "mode": mode,
            "packages": packages,
            "jars": jars,
            "py_files": py_files,
            "priority": priority,
            "key": key,
            "on_existing": on_existing,
            "acquire_timeout": acquire_timeout,
            "max_duration": max_duration,
        },
        conf=conf or [],
        labels=label or [],
        properties_file=properties_file,
    )
    if not command or not command[0]:
        raise Exit(USAGE, "there is no command to run; write it after --")
    options = RunOptions(
        url=globals_of(context).url, config=config, ask=ask, py_files=files, command=tuple(command), quiet=quiet
    )
    raise Exit(running.run(options))

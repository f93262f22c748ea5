"""``run``: a lease around a command.

Acquire, wait, attach, start the command, wait for it, release. Whatever happens in between, the lease is released and
an embedded broker is ended. If this process is killed, the command and an embedded broker are ended at once (by those
that wait for our end), and the lease of another broker by its time to live.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from sparkbroker.broker.cli import child as children
from sparkbroker.broker.cli import python_files
from sparkbroker.broker.cli.child import Child
from sparkbroker.broker.cli.embedded import EmbeddedBroker
from sparkbroker.broker.cli.exit_codes import FAILED, LEASE_LOST, OK, REFUSED, SIGNAL_BASE, Exit
from sparkbroker.broker.cli.locate import find
from sparkbroker.broker.cli.progress import ProgressDisplay
from sparkbroker.broker.cli.run_options import CLIENT_REFUSED, RunOptions
from sparkbroker.broker.cli.signals import Received, signals_to
from sparkbroker.broker.cli.spark_environment import command_environment
from sparkbroker.broker.cli.watcher import Watcher
from sparkbroker.client import (
    AsyncBroker,
    AsyncLease,
    BrokerFault,
    ClientConnection,
    ConnectConnection,
    LeaseLost,
    LocalConnection,
    child_environment,
    resolve_address,
)
from sparkbroker.client.local_settings import local_settings
from sparkbroker.client.nameless_user import java_options, with_java_options
from sparkbroker.client.packaged_java import packaged_java

ARTIFACTS_TIMEOUT: Final = 120.0
"""Seconds to add ``--py-files`` to a session that has just answered."""


def run(options: RunOptions) -> int:
    """The command's exit status, or one of ``exit_codes``. Raise what keeps it from being started."""
    return asyncio.run(_run(options))


class _Interrupts:
    """Where signals go: to the command once there is one; before and after, they cancel."""

    def __init__(self, task: "asyncio.Task[int]") -> None:
        self._task = task
        self.child: Child | None = None
        self.number = 0

    def receive(self, received: Received) -> None:
        if self.child is not None:
            self.child.pass_on(received)
            return
        self.number = self.number or received.number
        self._task.cancel()


async def _run(options: RunOptions) -> int:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("asyncio.run makes a task")
    interrupts = _Interrupts(task)
    with signals_to(asyncio.get_running_loop(), interrupts.receive):
        try:
            return await _with_broker(options, interrupts)
        except asyncio.CancelledError:
            if not interrupts.number:
                raise
            return SIGNAL_BASE + interrupts.number


async def _with_broker(options: RunOptions, interrupts: _Interrupts) -> int:
    connect = options.ask.get("mode") != "LOCAL"
    files = python_files.check(options.py_files, connect=connect)
    async with AsyncExitStack() as stack:
        address = find(options.url)
        display = stack.enter_context(ProgressDisplay(quiet=options.quiet))
        embedded = None
        if address is None:
            display.say("no broker is configured or running: starting one for this command")
            embedded = await stack.enter_async_context(EmbeddedBroker(options.config))
            address = resolve_address(embedded.url)
        lost = asyncio.Event()
        # The client's own log tells, on stderr too, of notices, of a broker that is away and of a release that failed.
        broker = AsyncBroker(
            address,
            on_lost=lambda _: lost.set(),
            on_resumed=lambda _: _tell("the broker is back; the lease holds"),
        )
        await stack.enter_async_context(broker)
        try:
            return await _Run(options, broker, files, lost, interrupts, display).run()
        except BrokerFault as error:
            if embedded is None:
                raise
            # Its log goes with it: nobody could look there.
            raise Exit(FAILED, f"{error}\nThe embedded broker's last log lines:\n{embedded.last_words()}") from error


class _Run:
    """One lease and one command."""

    def __init__(
        self,
        options: RunOptions,
        broker: AsyncBroker,
        files: tuple[Path, ...],
        lost: asyncio.Event,
        interrupts: _Interrupts,
        display: ProgressDisplay,
    ) -> None:
        self._options = options
        self._broker = broker
        self._files = files
        self._lost = lost
        self._interrupts = interrupts
        self._display = display
        self._status: int | None = None
        self._told = False

    async def run(self) -> int:
        """The command's exit status, or LEASE_LOST."""
        try:
            with tempfile.TemporaryDirectory(prefix="sparkbroker-run-") as folder, Watcher(Path(folder)) as watcher:
                async with await self._broker.acquire(**self._options.ask) as lease:
                    await lease.wait_ready(self._display.show)
                    environment = await self._environment(lease, Path(folder))
                    self._display.__exit__(None, None, None)
                    self._status = await self._command(lease, environment, watcher)
        except LeaseLost as error:
            if self._status is None:
                raise
            if not self._told:
                _tell(str(error))
            # A command that had already done its work has not lost anything.
            return OK if self._status == OK and not self._told else LEASE_LOST
        return self._status

    async def _environment(self, lease: AsyncLease, folder: Path) -> dict[str, str]:
        """What the command gets; the session has its files before."""
        connection = await lease.connection()
        if isinstance(connection, ClientConnection):
            raise Exit(REFUSED, CLIENT_REFUSED)
        staged = python_files.stage(self._files, folder)
        if isinstance(connection, ConnectConnection):
            variables = await self._connect(lease.name, connection, folder)
        else:
            variables = self._local(lease.name, connection, folder, staged.files)
        return command_environment(
            os.environ,
            variables,
            broker_url=self._broker.address.url,
            lease=lease.name,
            python_path=staged.python_path,
        )

    async def _connect(self, lease: str, connection: ConnectConnection, folder: Path) -> dict[str, str]:
        if self._files:
            self._display.say("adding --py-files to the Spark session")
            async with asyncio.timeout(ARTIFACTS_TIMEOUT):
                await asyncio.to_thread(python_files.add_to_session, connection, self._files)
        trusted = ""
        if connection.ca_certificate:
            trusted = str(_private_file(folder / "ca.pem", connection.ca_certificate))
        return child_environment.connect_variables(os.environ, connection, lease=lease, ca_file=trusted)

    def _local(self, lease: str, connection: LocalConnection, folder: Path, files: Sequence[str]) -> dict[str, str]:
        settings = local_settings({**connection.conf, "spark.master": connection.master})
        if files:
            settings["spark.submit.pyFiles"] = ",".join(files)
        settings = with_java_options(settings, java_options(folder, os.environ))
        text = child_environment.spark_properties(sorted(settings.items()))
        return child_environment.local_variables(
            os.environ,
            connection,
            lease=lease,
            properties_file=str(_private_file(folder / "spark.conf", text)),
            python=_interpreter(self._options.command[0]),
            java_home=packaged_java(os.environ, folder),
        )

    async def _command(self, lease: AsyncLease, environment: dict[str, str], watcher: Watcher) -> int:
        def began(child: Child) -> None:
            watcher.watch(child.pid)
            # Before the command can begin: it, not its start, is what a signal is for from its first moment on.
            self._interrupts.child = child

        try:
            child = await children.start(self._options.command, environment, began)
            async with asyncio.TaskGroup() as group:
                ending = group.create_task(self._end_when_lost(lease, child), name="end-when-lost")
                status = await child.wait()
                ending.cancel()
        finally:
            self._interrupts.child = None
        return status

    async def _end_when_lost(self, lease: AsyncLease, child: Child) -> None:
        await self._lost.wait()
        self._told = True
        _tell(f"{lease.lost}\nending the command")
        await child.end()


def _private_file(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    return path


def _interpreter(command: str) -> str:
    """The command's path if it is a Python, else nothing."""
    return (shutil.which(command) or "") if Path(command).name.startswith("python") else ""


def _tell(message: str) -> None:
    print(f"sparkbroker: {message}", file=sys.stderr, flush=True)

"""The command ``sparkbroker``.

Promises: it talks to a broker only through ``sparkbroker.client``; data goes to stdout, everything else to stderr;
``-o json`` prints the API's own JSON; the exit status is one of ``exit_codes``. ``--help`` and completion import
neither gRPC nor Spark. Not promised: the layout of the tables.
"""

from sparkbroker.broker.cli.exit_codes import EXIT_CODES
from sparkbroker.broker.cli.main import main

__all__ = ["EXIT_CODES", "main"]

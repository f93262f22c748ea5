"""The few Spark Connect calls that a broker makes, encoded by hand: importing pyspark's stubs costs 0.3 s and 130 MB.

Promised: a call ends within its timeout, carries exactly the given headers, uses no proxy, and fails only with
ConnectCallFailed. Not promised: anything about the server's version beyond 4.0's messages.

``release`` of a session that doesn't exist succeeds and creates nothing; it passes authentication, so with a random id it
is the readiness probe.
"""

from sparkbroker.broker.adapters.spark_connect._calls import (
    ConnectCallFailed,
    Server,
    end_session,
    interrupt_all,
    probe,
    release,
)
from sparkbroker.broker.adapters.spark_connect._sniff import speaks_http2

__all__ = ["ConnectCallFailed", "Server", "end_session", "interrupt_all", "probe", "release", "speaks_http2"]

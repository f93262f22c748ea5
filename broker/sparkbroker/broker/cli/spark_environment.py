"""What the command of ``run`` finds in its environment, beside the way to its session. Pure: values in, values out.

Secrets stand in the environment of the command only, never in an argument list.
"""

from collections.abc import Mapping, Sequence

from sparkbroker.client import child_environment


def command_environment(
    base: Mapping[str, str],
    variables: Mapping[str, str],
    *,
    broker_url: str,
    lease: str,
    python_path: Sequence[str] = (),
) -> dict[str, str]:
    """``variables`` are those of ``sparkbroker.client.child_environment`` for its session."""
    own = {
        "SPARKBROKER_URL": broker_url,
        "SPARKBROKER_LEASE": lease,
        "PYTHONPATH": child_environment.python_path(base, python_path),
    }
    return {**child_environment.without_misleading(base), **own, **variables}

"""What the command of ``run`` finds in its environment, beside the way to its session. Pure: values in, values out.

Secrets stand in the environment of the command only, never in an argument list.
"""

from collections.abc import Mapping, Sequence

from sparkbroker.client.child_environment import without_misleading


def command_environment(
    base: Mapping[str, str],
    variables: Mapping[str, str],
    *,
    broker_url: str,
    lease: str,
    python_path: Sequence[str] = (),
) -> dict[str, str]:
    """``variables`` are those of ``sparkbroker.client.child_environment`` for its session."""
    result = without_misleading(base) | {"SPARKBROKER_URL": broker_url, "SPARKBROKER_LEASE": lease}
    if python_path:
        inherited = base.get("PYTHONPATH", "")
        result["PYTHONPATH"] = ":".join([*python_path, *([inherited] if inherited else [])])
    return {**result, **variables}

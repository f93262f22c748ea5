"""What one principal may have at a time. Beyond it, it is refused: nothing that another one has gives way to it."""

import msgspec


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """``live``: leases that have not ended. ``spec_bytes``: the size of one spec, see ``records.spec_size``;
    ``live_spec_bytes``: of all different ones of live leases. ``requests``: request ids that are remembered.
    ``logs``: that are read at a time; ``log_rate``: bytes of them in a second."""

    live: int = 1_000
    spec_bytes: int = 64 << 10
    live_spec_bytes: int = 16 << 20
    requests: int = 200_000
    logs: int = 100
    log_rate: int = 16 << 20

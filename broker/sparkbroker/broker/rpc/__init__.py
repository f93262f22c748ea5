"""The gRPC face of the use cases.

Promises: every error has a canonical code and an ErrorInfo; bad bytes, unknown fields and unknown enum values are
INVALID_ARGUMENT, never dropped; a cancelled call is cancelled in ``app``; a stopping server finishes the unary calls
that it has begun and tells its streams. Not promised: anything about leases: that is ``app``'s.
"""

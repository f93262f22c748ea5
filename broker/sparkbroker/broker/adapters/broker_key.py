"""What a broker's key proves: which drivers are its own, and who may use one. Nothing of it is stored, and so nothing is lost."""

import hashlib
import hmac

from sparkbroker.broker.domain.units import DriverId


def driver_token(key: bytes, driver_id: DriverId) -> str:
    """The secret that opens this driver, and no other one (promise 11)."""
    return hmac.new(key, driver_id.encode(), hashlib.sha256).hexdigest()


def owner_mark(key: bytes) -> str:
    """What a broker marks its drivers with. It is no secret, and doesn't tell the key."""
    return hashlib.sha256(b"owner\0" + key).hexdigest()[:16]

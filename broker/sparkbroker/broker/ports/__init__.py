"""What the application needs from the world: small Protocols, one concern each. One behavioural suite runs over every
adapter and every fake of a port (``tests/contracts``)."""

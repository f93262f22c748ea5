"""The ports' implementations. Each translates its library's errors once, at its edge."""

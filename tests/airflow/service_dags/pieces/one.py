"""See add.py."""

ONE = 1

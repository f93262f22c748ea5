"""A module beside a DAG. It keeps a lock, as many do, which nothing can pickle."""

import threading

LOCK = threading.Lock()


def fivefold(x: int) -> int:
    with LOCK:
        return x * 5


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def doubled(self) -> int:
        return fivefold(self.x) * 2

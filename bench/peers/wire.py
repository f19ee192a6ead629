"""Tells who waits that a result is known: one datagram each, cheaper than any store of results."""

import os
import socket
import time

ADDRESS = os.environ.get("BENCH_SOCKET", "")


class Told:
    """Counts what is told."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
        self.socket.bind(ADDRESS)
        self.socket.settimeout(60)

    def wait(self, count):
        for _ in range(count):
            self.socket.recv(256)
        return time.perf_counter()


class Teller:
    def __init__(self):
        self.socket = None

    def tell(self, what):
        if self.socket is None:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.socket.connect(ADDRESS)
        self.socket.send(what.encode())

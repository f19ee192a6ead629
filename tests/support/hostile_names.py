"""A small internet in a network namespace of its own, whose names and servers mean ill, and what a fetch makes of it.

Run as `unshare --net --mount python -m tests.support.hostile_names FOLDER`; prints one JSON object.
"""

import json
import socket
import struct
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from shepherd.errors import ShepherdError
from shepherd.pipelines.data_urls import DataSources
from shepherd.publisher.draft import Limits
from shepherd.publisher.fetcher import Fetcher
from shepherd.store.memory import MemoryStore
from tests.support.http_stub import HttpStub, say

#: An address of the real internet, which is this machine's own in here.
PUBLIC = "93.184.216.34"
PORT = 8080

#: What each name has for an address, the first time, the second, and so on.
NAMES: dict[str, list[list[str]]] = {
    "good.test": [[PUBLIC]],
    "changes.test": [[PUBLIC], ["127.0.0.1"]],
    "changes-late.test": [[PUBLIC], [PUBLIC], ["169.254.169.254"]],
    "private.test": [["10.0.0.1"]],
    "loopback.test": [["127.0.0.1"]],
    "metadata.test": [["169.254.169.254"]],
    "both.test": [[PUBLIC, "127.0.0.1"]],
}

#: What is fetched, by what is wrong with it. The private server answers on every address of this machine but one.
URLS: dict[str, str] = {
    "127.1": f"http://127.1:{PORT}/",
    "0x7f.1": f"http://0x7f.1:{PORT}/",
    "decimal": f"http://2130706433:{PORT}/",
    "octal": f"http://0177.0.0.1:{PORT}/",
    "mapped": f"http://[::ffff:127.0.0.1]:{PORT}/",
    "IPv6 loopback": f"http://[::1]:{PORT}/",
    "zero": f"http://0:{PORT}/",
    "link-local": "http://169.254.169.254/latest/meta-data/",
    "localhost": f"http://localhost:{PORT}/",
    "user information": f"http://{PUBLIC}@127.0.0.1:{PORT}/",
    "a private name": f"http://private.test:{PORT}/",
    "a loopback name": f"http://loopback.test:{PORT}/",
    "a metadata name": "http://metadata.test/",
    "a name with both": f"http://both.test:{PORT}/",
    "a name that changes its address": f"http://changes.test:{PORT}/broken",
    "a name that changes it later": f"http://changes-late.test:{PORT}/broken",
    "a chain of four": f"http://good.test:{PORT}/chain/4",
    "a chain that ends here": f"http://good.test:{PORT}/to/http://127.1:{PORT}/",
    "a redirect to a private name": f"http://good.test:{PORT}/to/http://loopback.test:{PORT}/",
    "a redirect to a changed name": f"http://changes.test:{PORT}/to/http://changes.test:{PORT}/",
    "a redirect to a file": f"http://good.test:{PORT}/to/file:///etc/passwd",
    "a redirect to gopher": f"http://good.test:{PORT}/to/gopher://127.0.0.1:{PORT}/",
    "file:": "file:///etc/passwd",
    "gopher:": f"gopher://127.0.0.1:{PORT}/",
}
GOOD = {"plain": f"http://good.test:{PORT}/a.csv", "a chain of three": f"http://good.test:{PORT}/chain/3"}


def main(folder: Path) -> None:
    _prepare(folder)
    names = NameServer()
    with HttpStub(_public, host=PUBLIC, port=PORT), HttpStub(_private, host="127.0.0.1", port=PORT) as private:
        found = {what: _fetched(url, names) for what, url in {**URLS, **GOOD}.items()}
    print(json.dumps({"fetched": found, "private requests": len(private.requests), "asked": names.asked}))


def _prepare(folder: Path) -> None:
    resolver = folder / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.1\noptions timeout:2 attempts:1\n")
    for command in (
        ["ip", "link", "set", "lo", "up"],
        ["ip", "address", "add", f"{PUBLIC}/32", "dev", "lo"],
        ["mount", "--bind", str(resolver), "/etc/resolv.conf"],
    ):
        subprocess.run(command, check=True)


def _fetched(url: str, names: "NameServer") -> list[str]:
    names.begin()
    store = MemoryStore()
    try:
        claim = Fetcher(store, DataSources(), Limits(time_s=20)).fetch(url, run_id="r")
    except ShepherdError as error:
        return [error.code, str(error)]
    return ["fetched", store.read(claim).decode()]


def _public(request: BaseHTTPRequestHandler) -> None:
    kind, _, rest = request.path.removeprefix("/").partition("/")
    if kind == "chain" and int(rest) > 0:
        say(request, 302, Location=f"/chain/{int(rest) - 1}")
    elif kind == "to":
        say(request, 302, Location=rest)
    elif kind == "broken":
        # Once more, please: the name has another address by then.
        say(request, 200, b"part", content_length=1000, ETag='"v1"')
    else:
        say(request, 200, b"public")


def _private(request: BaseHTTPRequestHandler) -> None:
    say(request, 200, b"private")


class NameServer:
    """Answers for `NAMES` over UDP, in a thread."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}
        self._times: dict[str, int] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def begin(self) -> None:
        """Begin with the first address of each name again."""
        self._times.clear()

    def _serve(self) -> None:
        while True:
            query, address = self._socket.recvfrom(512)
            self._socket.sendto(self._answer(query), address)

    def _answer(self, query: bytes) -> bytes:
        labels, place = [], 12
        while length := query[place]:
            labels.append(query[place + 1 : place + 1 + length].decode().lower())
            place += 1 + length
        name, question = ".".join(labels), query[12 : place + 5]
        (kind,) = struct.unpack(">H", query[place + 1 : place + 3])
        addresses = self._addresses(name) if kind == 1 else []
        status = 0 if name in NAMES else 3
        header = query[:2] + struct.pack(">HHHHH", 0x8180 | status, 1, len(addresses), 0, 0)
        # Without time to live: nobody may keep it.
        records = [b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + socket.inet_aton(each) for each in addresses]
        return header + question + b"".join(records)

    def _addresses(self, name: str) -> list[str]:
        if name not in NAMES:
            return []
        self.asked[name] = self.asked.get(name, 0) + 1
        time = self._times[name] = self._times.get(name, 0) + 1
        return NAMES[name][min(time, len(NAMES[name])) - 1]


if __name__ == "__main__":
    main(Path(sys.argv[1]))

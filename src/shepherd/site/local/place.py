"""Where a RabbitMQ node of one's own lives: this machine's loopback address, unless told otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An address that only the node listens on, and what it calls itself and its neighbours there."""

    address: str = "127.0.0.1"
    #: What stands behind the @ of the node's name.
    host: str = "localhost"
    #: Addresses of the cluster's hosts, by name, beside those in /etc/hosts.
    hosts: Mapping[str, str] = field(default_factory=dict)
    #: What is written before a command to have it run there, such as `nsenter` and its options.
    enter: tuple[str, ...] = ()

    def erlang_address(self) -> str:
        return f"{{{self.address.replace('.', ',')}}}"

    def inetrc(self) -> str:
        own = "".join(
            f'{{host, {{{address.replace(".", ",")}}}, ["{name}"]}}.\n' for name, address in self.hosts.items()
        )
        return f'{{file, hosts, "/etc/hosts"}}.\n{own}{{lookup, [file]}}.\n'

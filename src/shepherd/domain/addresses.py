"""Which addresses of the internet are for everyone, in whichever way they are written."""

import ipaddress
import re
import unicodedata
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_GIVEN_OUT: Final = ipaddress.IPv6Network("2000::/3")
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")
_PART: Final = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")


def is_public(address: str) -> bool:
    """Return whether an address belongs to the public internet: not private, loopback, link-local or reserved."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return _is_public(parsed)


def literal_address(host: str) -> Address | None:
    """Return the address that a host is, without asking anybody; None for a name.

    Understands what a resolver takes for one: `127.1`, `0x7f.1`, `2130706433`, `017700000001`, digits of any script.
    """
    text = unicodedata.normalize("NFKC", host).replace("。", ".").removesuffix(".")
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return _by_numbers(text.split("."))


def is_local_name(host: str) -> bool:
    """Return whether a name means this machine everywhere (RFC 6761, section 6.3)."""
    name = unicodedata.normalize("NFKC", host).lower().removesuffix(".")
    return name == "localhost" or name.endswith(".localhost")


def _is_public(address: Address) -> bool:
    if not address.is_global or address.is_multicast:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return True
    # What a tunnel or a translator (RFC 6052) turns into an address of the old kind.
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _TRANSLATED:
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    found = [each for each in inner if each is not None]
    # Nothing else of IPv6 has been given out (RFC 4291, section 2.4): what `ipaddress` knows of the rest differs by
    # Python's version, as of site-local addresses and of a translator's local prefix.
    return all(map(_is_public, found)) and (bool(found) or address in _GIVEN_OUT)


def _by_numbers(parts: list[str]) -> ipaddress.IPv4Address | None:
    """Return what `inet_aton` makes of one to four numbers, of which the last fills what is left."""
    if len(parts) > 4 or not all(_PART.fullmatch(part) for part in parts):
        return None
    try:
        *first, last = [_number(part) for part in parts]
    except ValueError:
        return None
    room = 256 ** (4 - len(first))
    if any(number > 255 for number in first) or last >= room:
        return None
    value = last
    for place, number in enumerate(first):
        value += number << (24 - 8 * place)
    return ipaddress.IPv4Address(value)


def _number(text: str) -> int:
    if text[:2].lower() == "0x":
        return int(text[2:] or "0", 16)
    return int(text, 8) if text.startswith("0") and len(text) > 1 else int(text[:20])

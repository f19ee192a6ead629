"""Addresses in every spelling."""

import pytest

from shepherd.domain.addresses import is_local_name, is_public, literal_address


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "127.0.1",
        "0x7f.1",
        "0X7F.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "2130706433",
        "0x7f000001",
        "127.0.0.1.",
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020\u30020\u30021",
        "\u2460\u2461\u2466.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[::]",
        "[fe80::1%eth0]",
        "[fc00::1]",
        "[fec0::1]",
        "[::127.0.0.1]",
        "[64:ff9b:1::7f00:1]",
        "[5f00::1]",
        "0",
        "10.0.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "2852039166",
        "192.168.0.1",
        "224.0.0.1",
        "255.255.255.255",
    ],
)
def test_an_address_that_is_not_for_everyone_is_known_in_every_spelling(host: str) -> None:
    address = literal_address(host)

    assert address is not None
    assert not is_public(str(address))


@pytest.mark.parametrize("host", ["93.184.216.34", "0x5d.184.55330", "[2606:2800:220:1::1]", "[64:ff9b::5db8:d822]"])
def test_a_public_address_is_public(host: str) -> None:
    address = literal_address(host)

    assert address is not None
    assert is_public(str(address))


@pytest.mark.parametrize(
    "host", ["example.org", "127.1.example.org", "1.2.3.4.5", "256.1.1.1.1", "0xg", "08.1", "a", ""]
)
def test_a_name_is_no_address(host: str) -> None:
    assert literal_address(host) is None


def test_localhost_is_this_machine() -> None:
    assert is_local_name("LOCALHOST.")
    assert is_local_name("a.localhost")
    assert not is_local_name("localhost.example.org")

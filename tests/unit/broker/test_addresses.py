import pytest

from shepherd.broker.addresses import broker_addresses, hosts_of, vhost_of
from shepherd.errors import ConfigurationError


def test_addresses_stand_in_their_order_with_commas_between() -> None:
    found = broker_addresses("amqp://a:b@node-1/pipes, amqps://a:b@node-2:5679/pipes")

    assert found == ("amqp://a:b@node-1/pipes", "amqps://a:b@node-2:5679/pipes")


def test_what_is_shown_of_them_has_no_password() -> None:
    assert hosts_of("amqp://a:secret@node-1/,amqps://a:secret@node-2/") == ("node-1:5672", "node-2:5671")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "begins with ''"),
        ("http://x", "begins with 'http'"),
        ("amqp://a:secret@/", "names no host"),
        ("amqp://a:secret@x:port/", "is no URL"),
        ("amqp://a:secret@x/,", "address 2 begins with ''"),
        ("amqp://a:secret@x:5672,y:5672/", "address 1|address 2"),
        ("amqp://a:sec,ret@x/", "address 1"),
        ("amqp://a:secret@x/one,amqp://a:secret@y/other", "same virtual host"),
    ],
)
def test_what_cannot_be_used_is_refused_without_its_password(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^SHEPHERD_BROKER_URL.*(?:{reason})") as refused:
        broker_addresses(text)

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "vhost"),
    [("amqp://a@b", "/"), ("amqp://a@b/", "/"), ("amqp://a@b/%2f", "/"), ("amqp://a@b/pipes", "pipes")],
)
def test_the_virtual_host_is_read_as_the_client_reads_it(url: str, vhost: str) -> None:
    assert vhost_of(url) == vhost

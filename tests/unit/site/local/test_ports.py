import socket

import pytest

from shepherd.errors import ConfigurationError
from shepherd.site.local.ports import describe_given, refuse_taken


def test_a_taken_port_is_refused_with_the_variable_that_moves_it() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]

        with pytest.raises(ConfigurationError) as refused:
            refuse_taken({"SHEPHERD_WEB_PORT": [port]})

    assert (
        str(refused.value)
        == f"SHEPHERD_WEB_PORT: port {port} of 127.0.0.1 is taken; set SHEPHERD_WEB_PORT to another one"
    )


def test_all_taken_ports_are_named_at_once() -> None:
    with socket.socket() as one, socket.socket() as other:
        for server in (one, other):
            server.bind(("127.0.0.1", 0))
            server.listen()

        with pytest.raises(ConfigurationError) as refused:
            refuse_taken(
                {"SHEPHERD_WEB_PORT": [one.getsockname()[1]], "SHEPHERD_BROKER_PORT": [other.getsockname()[1]]}
            )

    assert "SHEPHERD_WEB_PORT" in str(refused.value)
    assert "SHEPHERD_BROKER_PORT" in str(refused.value)


def test_a_port_that_only_connections_of_a_stopped_server_hold_is_free() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()

    refuse_taken({"SHEPHERD_WEB_PORT": [port]})


def test_a_service_that_is_used_in_place_of_a_private_one_is_named_without_its_password() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]

        said = describe_given({"SHEPHERD_BROKER_URL": f"amqp://asha:secret@127.0.0.1:{port}/"})

    assert said == [f"SHEPHERD_BROKER_URL is set: 127.0.0.1:{port} is used in place of a private service."]


@pytest.mark.parametrize("path", ["/", ":no-port/"])
def test_a_service_that_does_not_answer_is_said_to_with_what_brings_a_private_one(path: str) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]

    (said,) = describe_given({"PREFECT_API_URL": f"http://127.0.0.1{f':{port}/' if path == '/' else path}"})

    assert "It doesn't answer: " in said
    assert said.endswith("Unset PREFECT_API_URL to have a private one.")

from collections.abc import Iterator

import pytest

from shepherd.broker.memory import MemoryBroker
from shepherd.broker.port import Subscription
from shepherd.broker.topology import CONTROL_EXCHANGE, EXCHANGES
from shepherd.wire.control import Withdrawals
from shepherd.worker.withdrawn import WithdrawnList


@pytest.fixture
def broker() -> Iterator[MemoryBroker]:
    broker = MemoryBroker()
    broker.declare(exchanges=EXCHANGES)
    yield broker
    broker.close()


@pytest.fixture
def control(broker: MemoryBroker) -> Subscription:
    return broker.listen(CONTROL_EXCHANGE, binding_keys=["worker.all"])


def whole(*tokens: str) -> Withdrawals:
    return Withdrawals(tokens=tokens, is_complete=True)


def added(*tokens: str) -> Withdrawals:
    return Withdrawals(tokens=tokens)


def test_the_list_is_known_once_it_came_whole(control: Subscription) -> None:
    withdrawn = WithdrawnList(control)

    withdrawn.hear(added("a"), generation=control.generation)
    after_an_addition = withdrawn.is_known
    withdrawn.hear(whole("b"), generation=control.generation)

    assert not after_an_addition
    assert withdrawn.is_known
    assert "b" in withdrawn
    assert "c" not in withdrawn


def test_what_was_lost_is_on_the_list_too(control: Subscription) -> None:
    withdrawn = WithdrawnList(control)

    withdrawn.hear(Withdrawals(tokens=(), lost=("added",)), generation=control.generation)
    withdrawn.hear(Withdrawals(tokens=(), lost=("whole",), is_complete=True), generation=control.generation)

    assert "added" in withdrawn
    assert "whole" in withdrawn


def test_a_list_that_was_overtaken_by_an_addition_does_not_undo_it(control: Subscription) -> None:
    withdrawn = WithdrawnList(control)

    withdrawn.hear(added("new"), generation=control.generation)
    withdrawn.hear(whole("old"), generation=control.generation)

    assert "new" in withdrawn


def test_after_the_control_queue_was_gone_the_list_is_unknown_until_it_comes_again(
    broker: MemoryBroker, control: Subscription
) -> None:
    withdrawn = WithdrawnList(control)
    before = control.generation
    withdrawn.hear(whole("a"), generation=before)

    broker.server.go_down()
    while_away = withdrawn.is_known
    broker.server.come_back()
    after = withdrawn.is_known
    withdrawn.hear(whole("b"), generation=before)
    by_an_old_one = withdrawn.is_known
    withdrawn.hear(whole("c"), generation=control.generation)

    assert (while_away, after, by_an_old_one) == (False, False, False)
    assert withdrawn.is_known
    assert "c" in withdrawn
    assert "a" not in withdrawn


def test_who_waits_for_the_list_does_not_wait_for_ever(control: Subscription) -> None:
    withdrawn = WithdrawnList(control)

    assert not withdrawn.wait_known(timeout_s=0.1)
    withdrawn.hear(whole(), generation=control.generation)
    assert withdrawn.wait_known(timeout_s=0.1)

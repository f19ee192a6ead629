"""What a task's policy may say, and what it decides."""

from typing import Any

import pytest

from shepherd.domain.policy import Policy, merged, policy_faults, policy_of


def test_a_policy_that_says_nothing_tries_once_and_replaces_three_lost_attempts() -> None:
    policy = Policy()

    assert not policy.tries_again(failures=1, code="value_error")
    assert policy.replaces_lost(losses=3)
    assert not policy.replaces_lost(losses=4)


def test_each_pause_may_be_twice_as_long_up_to_ten_minutes() -> None:
    policy = Policy(backoff=5.0)

    assert [policy.longest_pause_s(n) for n in (1, 2, 3, 7, 8, 9, 10_000)] == [5, 10, 20, 320, 600, 600, 600]


@pytest.mark.parametrize("code", ["invalid_context", "protocol_error", "unknown_task", "wait_timeout"])
def test_what_no_further_attempt_changes_is_not_tried_again(code: str) -> None:
    assert not Policy(retries=5).tries_again(failures=1, code=code)


def test_a_later_document_counts_more_and_defaults_are_not_kept() -> None:
    assert merged({"retries": 1, "backoff": 2}, {"retries": 0, "run_timeout": 9}, {"run_timeout": None}) == {
        "backoff": 2
    }


def test_only_the_fields_of_a_policy_are_taken_out_of_a_task() -> None:
    assert policy_of({"name": "x", "order_no": 1, "retries": 2, "wait_timeout": None}) == {
        "retries": 2,
        "wait_timeout": None,
    }


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"retries": -1}, "t.retries"),
        ({"retries": True}, "t.retries"),
        ({"retries": 1.0}, "t.retries"),
        ({"retry_on_lost": 1001}, "t.retry_on_lost"),
        ({"backoff": "5"}, "t.backoff"),
        ({"backoff": 601}, "t.backoff"),
        ({"wait_timeout": 0}, "t.wait_timeout"),
        ({"run_timeout": 10**400}, "t.run_timeout"),
        ({"run_timeout": float("nan")}, "t.run_timeout"),
    ],
)
def test_what_is_no_policy_is_named_by_its_path(document: dict[str, Any], path: str) -> None:
    assert [fault.path for fault in policy_faults(document, path="t.")] == [path]


def test_a_policy_without_faults_is_read() -> None:
    document = {"retries": 2, "backoff": 0, "retry_on_lost": 0, "wait_timeout": 1.5, "run_timeout": None}

    assert list(policy_faults(document, path="")) == []
    assert Policy.of(document) == Policy(retries=2, backoff=0, retry_on_lost=0, wait_timeout=1.5, run_timeout=None)

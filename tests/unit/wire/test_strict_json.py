"""Only JSON that every reader reads alike gets in, and what is refused is refused with its place."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shepherd.wire import strict_json

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
)
KEYS = st.text(max_size=10)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)


def refusal(text: bytes | str) -> str:
    with pytest.raises(strict_json.StrictJsonError) as caught:
        strict_json.loads(text)
    return str(caught.value)


@given(VALUES)
def test_what_was_written_is_read_again_the_same(value: Any) -> None:
    written = strict_json.dumps(value)

    assert written.isascii()
    assert strict_json.loads(written) == value
    assert strict_json.loads(json.dumps(value, ensure_ascii=False, indent=1).encode()) == value


@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:0123456789.eE+-NaInfityrue\\u\x00\ud800 ', max_size=60))
def test_any_text_is_either_read_or_refused_in_words_that_can_be_sent(text: bytes | str) -> None:
    try:
        value, faults = strict_json.loads(text), []
    except strict_json.StrictJsonError as error:
        value, faults = None, error.faults

    strict_json.dumps(value)
    "".join(str(fault) for fault in faults).encode("utf-8")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "is not JSON: Expecting value (line 1, column 1)"),
        (b"NaN", "is NaN, which JSON doesn't know"),
        (b'{"a": [1, NaN]}', "a[1]: is NaN, which JSON doesn't know"),
        (b'{"a": Infinity}', "a: is Infinity, which JSON doesn't know"),
        (b"[-Infinity]", "[0]: is -Infinity, which JSON doesn't know"),
        (b'{"a": 1e400}', "a: is a number too large to be held"),
        (b'{"a": -1e400}', "a: is a number too large to be held"),
        (b'{"a": {"b": 1, "b": 1}}', "a.b: stands more than once"),
        (b'[{"": 1, "": 2}]', "[0].: stands more than once"),
        (b'{"a": "\\ud800"}', "a: holds half a surrogate pair, which is no character"),
        ('{"a": "\ud800"}', "a: holds half a surrogate pair, which is no character"),
        (b'{"a": {"\\udc00": 1}}', "a: has a key with half a surrogate pair, which is no character"),
        (b'{"a": "\x00"}', "is not JSON: Invalid control character at (line 1, column 8)"),
        (b"\xff", "is not UTF-8: byte 0 can't be read"),
        ("{}".encode("utf-16"), "is not UTF-8: byte 0 can't be read"),
        (b"\xef\xbb\xbf{}", "is not JSON: Unexpected UTF-8 BOM (decode using utf-8-sig) (line 1, column 1)"),
        (b"1 2", "is not JSON: Extra data (line 1, column 3)"),
        (b"{'a': 1}", "is not JSON: Expecting property name enclosed in double quotes (line 1, column 2)"),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(text: bytes | str, reason: str) -> None:
    assert refusal(text) == reason


@pytest.mark.parametrize("sign", ["", "-"])
def test_an_integer_may_have_4300_digits(sign: str) -> None:
    largest = sign + "9" * 4300

    assert strict_json.dumps(strict_json.loads(largest)) == largest
    assert refusal(f'{{"a": {sign}{"9" * 4301}}}') == "a: is an integer of too many digits"


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("depth", [101, 10_000, 100_000])
def test_what_is_nested_deeper_than_a_hundred_levels_is_refused(opening: str, closing: str, depth: int) -> None:
    inner = "" if opening == "[" else "1"

    assert refusal(opening * depth + inner + closing * depth).endswith("is nested more than 100 levels deep")


def test_a_hundred_levels_are_read() -> None:
    strict_json.loads("[" * 100 + "]" * 100)


def test_an_escaped_nul_and_a_whole_surrogate_pair_are_characters_like_any_other() -> None:
    assert strict_json.loads(b'"\\u0000\\ud83d\\ude00"') == "\0\N{GRINNING FACE}"


def test_all_faults_are_told_up_to_twenty() -> None:
    assert refusal(b'{"a": NaN, "b": {"c": 1, "c": 2}}') == (
        "a: is NaN, which JSON doesn't know; b.c: stands more than once"
    )
    assert refusal(b"[" + b"NaN," * 1000 + b"1]").count("NaN") == 20


def test_a_key_that_stands_twice_and_is_no_text_is_refused_in_words_that_can_be_sent() -> None:
    assert refusal(b'{"\\ud800": 1, "\\ud800": 2}') == "has a key with half a surrogate pair, which is no character"


def test_writing_refuses_what_has_no_json_form() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        strict_json.dumps(float("nan"))
    with pytest.raises(TypeError):
        strict_json.dumps({1, 2})

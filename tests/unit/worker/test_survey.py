"""What is looked for in all of a text table before it is parsed."""

from pathlib import Path

import pytest

from shepherd.worker.survey import Oddities, survey

PLAIN = "a,b\n1,NA\n-2.5,x\r\n0,0.5\n,2024-01-05 00:05:00\n"


def _found(tmp_path: Path, content: str, separator: str = ",") -> Oddities:
    path = tmp_path / "data.csv"
    path.write_text(content, newline="")
    return survey(path, separator)


def test_a_plain_file_has_nothing_odd(tmp_path: Path) -> None:
    assert _found(tmp_path, PLAIN) == Oddities()


@pytest.mark.parametrize("field", ["00501", "-01", "+00", " 5", "\t05", '"007"', '" 5"'])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|", "\x1f"])
def test_codes_are_found(tmp_path: Path, field: str, separator: str) -> None:
    for row in (f"{field}{separator}1", f"1{separator}{field}"):
        assert _found(tmp_path, f"a{separator}b\n1{separator}2\n{row}\n", separator).codes, row


@pytest.mark.parametrize("field", ["N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", '""', '"NULL"'])
def test_words_for_missing_values_are_found(tmp_path: Path, field: str) -> None:
    for row in (f"{field},1", f"1,{field}"):
        assert _found(tmp_path, f"a,b\n1,2\n{row}\n") == Oddities(words=True), row


@pytest.mark.parametrize("content", ["\na,b\n1,2\n", "a,b\n\n1,2\n", "a,b\r\n\r\n1,2\r\n", "a,b\r1,2\r", 'a\n"\n\n"\n'])
def test_odd_lines_are_found(tmp_path: Path, content: str) -> None:
    assert _found(tmp_path, content).lines


@pytest.mark.parametrize("before", range(1024 * 1024 - 9, 1024 * 1024 + 1))
def test_what_lies_across_two_pieces_is_found(tmp_path: Path, before: int) -> None:
    line = "1,23456\n"
    lines = "a,b\n" + line * (before // len(line)) + "7" * (before % len(line) + 1)

    assert _found(tmp_path, lines + ",01\n") == Oddities(codes=True)
    assert _found(tmp_path, lines + ",1\n\n2,3\n") == Oddities(lines=True)
    assert _found(tmp_path, lines + ",NULL") == Oddities(words=True)

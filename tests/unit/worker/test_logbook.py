from shepherd.broker.port import Message
from shepherd.wire.logs import LogLine, LogLines
from shepherd.worker.logbook import MOST_LINES, Logbook
from shepherd.worker.pipe import LONGEST_LINE, cut


def _lines(messages: list[Message]) -> list[LogLine]:
    return [line for message in messages for line in LogLines.parse(message.body).lines]


def test_lines_are_numbered_through_all_batches() -> None:
    logbook = Logbook(token="t", worker="w")
    sent: list[Message] = []

    for number in range(1200):
        logbook.add(level="INFO", text=str(number))
        sent += logbook.due()
    sent += logbook.rest()

    assert [line.n for line in _lines(sent)] == list(range(1, 1201))
    assert len(sent) == 3
    assert not logbook.rest()


def test_a_few_lines_wait_for_more() -> None:
    logbook = Logbook(token="t", worker="w")
    logbook.add(level="INFO", text="x")

    assert not logbook.due()
    assert logbook.is_waiting


def test_a_log_ends_with_a_line_that_says_so() -> None:
    logbook = Logbook(token="t", worker="w")
    sent: list[Message] = []

    for _ in range(MOST_LINES + 500):
        logbook.add(level="INFO", text="x")
        sent += logbook.due()
    sent += logbook.rest()

    assert logbook.count == MOST_LINES
    assert len(_lines(sent)) == MOST_LINES
    assert "the log ends here" in _lines(sent)[-1].text


def test_much_text_ends_it_too() -> None:
    logbook = Logbook(token="t", worker="w")

    for _ in range(1000):
        logbook.add(level="INFO", text="x" * LONGEST_LINE)
        logbook.due()

    assert logbook.count == 257


def test_a_long_line_is_cut_and_says_so() -> None:
    logbook = Logbook(token="t", worker="w")
    logbook.add(level="INFO", text="x" * (LONGEST_LINE + 1))

    line = _lines(logbook.rest())[0]

    assert line.text.startswith("x" * (LONGEST_LINE - 100))
    assert line.text.endswith(f"(cut; it had {LONGEST_LINE + 1} characters)")
    assert cut(line.text) == line.text

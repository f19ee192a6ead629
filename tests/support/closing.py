"""What tests leave to be printed at the end of the test run, from whichever process they ran in."""

from pathlib import Path

from tests.support.folders import SHARED_FOLDER

#: A file for each section: `faults.txt` has a line for each row, `model.txt` what the model explored.
FOLDER = SHARED_FOLDER / "closing"


def leave(section: str, text: str) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    # One write of a file opened for append: those of other processes stay whole.
    with file_of(section).open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def left(section: str) -> list[str]:
    file = file_of(section)
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def file_of(section: str) -> Path:
    return FOLDER / f"{section}.txt"


def forget_all() -> None:
    for file in FOLDER.glob("*.txt"):
        file.unlink(missing_ok=True)

import logging
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shepherd.wire.envelope import Finished, Withdrawn
from shepherd.wire.value import NOTHING
from shepherd.worker.spool import Spool

LIMIT = 64 * 1024


def opened(root: Path, *, name: str = "mine", limit: int = LIMIT) -> Spool:
    spool = Spool(root, name=name, limit=limit)
    assert spool.open() == []
    assert spool.trouble == ""
    return spool


def reply(token: str) -> bytes:
    at = datetime(2026, 1, 31, tzinfo=UTC)
    return Finished(token=token, worker="w", at=at, elapsed_s=1.0, result=NOTHING).to_bytes()


def put(spool: Spool, token: str) -> None:
    assert spool.put(token, reply(token)) is not None


def tokens(root: Path, *, name: str = "mine") -> list[str]:
    """Return what a starting worker finds."""
    spool = Spool(root, name=name, limit=LIMIT)
    try:
        return [kept.token for kept in spool.open()]
    finally:
        spool.close()


def test_what_was_put_is_found_by_the_next_worker_in_its_order(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for token in ("first", "second", "third"):
        put(spool, token)
    gone = spool.put("gone", reply("gone"))
    assert gone is not None
    spool.remove(gone)

    spool.close()

    assert tokens(tmp_path) == ["first", "second", "third"]


def test_two_living_workers_of_one_name_have_a_folder_each(tmp_path: Path) -> None:
    one, two = opened(tmp_path), opened(tmp_path)

    put(one, "of one")
    put(two, "of two")

    assert tokens(tmp_path) == []
    one.close()
    assert tokens(tmp_path) == ["of one"]


def test_what_a_dead_worker_of_another_name_left_is_adopted(tmp_path: Path) -> None:
    dead, living = opened(tmp_path, name="dead"), opened(tmp_path, name="living")
    put(dead, "left")
    put(living, "kept")

    dead.close()

    assert tokens(tmp_path, name="heir") == ["left"]
    assert tokens(tmp_path, name="heir") == ["left"]
    living.close()


def test_a_process_that_is_killed_leaves_its_replies_and_its_lock(tmp_path: Path) -> None:
    program = f"""
import os
from pathlib import Path
from shepherd.worker.spool import Spool
spool = Spool(Path({str(tmp_path)!r}), name="mine", limit=10000)
spool.open()
spool.put("left", {reply("left")!r})
os.kill(os.getpid(), 9)
"""

    ended = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": "src"}, check=False)

    assert ended.returncode == -9
    assert tokens(tmp_path) == ["left"]


def test_what_was_cut_off_or_is_foreign_is_no_reply_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = opened(tmp_path)
    put(spool, "whole")
    [folder] = tmp_path.iterdir()
    (folder / "1-torn.reply").write_bytes(reply("torn")[:20])
    (folder / "2-empty.reply").touch()
    (folder / "3-unfinished.tmp").write_bytes(reply("unfinished"))
    (folder / "4-foreign.txt").write_text("hello")
    (folder / "5-folder").mkdir()
    spool.close()

    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="shepherd.worker.spool"):
        found = tokens(tmp_path)

    assert found == ["whole"]
    assert [record.message for record in caplog.records] == ["spool.set_aside"] * 4
    assert len(list((folder / "aside").iterdir())) == 4
    assert tokens(tmp_path) == ["whole"]


def test_a_full_spool_refuses_with_the_reason_and_recovers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = opened(tmp_path, limit=8192)
    large = Withdrawn(token="t", worker="w" * 255, at=datetime(2026, 1, 31, tzinfo=UTC)).to_bytes()
    kept = []
    while (entry := spool.put("t", large)) is not None:
        kept.append(entry)

    assert "SHEPHERD_SPOOL_MB" in spool.trouble
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["spool.refuses"]
    assert kept
    for entry in kept:
        spool.remove(entry)
    spool.probe()
    assert spool.trouble == ""
    assert spool.put("t", large) is not None


def test_a_folder_that_cannot_be_written_is_said_and_waited_for(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    root.write_text("not a folder")
    spool = Spool(root, name="mine", limit=LIMIT)

    at_first = spool.open()
    trouble = spool.trouble
    refused = spool.put("t", reply("t"))
    root.unlink()

    assert (at_first, refused) == ([], None)
    assert str(root) in trouble
    assert spool.open() == []
    assert spool.trouble == ""
    put(spool, "t")


def test_a_folder_that_vanishes_is_no_end(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool")
    [folder] = (tmp_path / "spool").iterdir()
    folder.rename(tmp_path / "elsewhere")

    refused = spool.put("t", reply("t"))
    (tmp_path / "elsewhere").rename(folder)
    spool.probe()

    assert refused is None
    assert spool.trouble == ""

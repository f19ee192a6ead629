"""A worker's folder for files of attempts."""

from pathlib import Path

from shepherd.worker.scratch import scratch_folder


def test_a_folder_is_gone_with_its_worker(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        (folder / "a").mkdir()
        assert list(tmp_path.iterdir()) == [folder]

    assert not list(tmp_path.iterdir())


def test_what_a_dead_worker_left_is_removed_and_what_a_live_one_has_stays(tmp_path: Path) -> None:
    left, other = tmp_path / "shepherd-scratch-left", tmp_path / "shepherd"
    (left / "a").mkdir(parents=True)
    (left / "a" / "data.parquet").write_bytes(b"x")
    other.mkdir()
    (tmp_path / "shepherd-scratch-link").symlink_to(other)

    with scratch_folder(tmp_path) as living:
        assert not left.exists()
        with scratch_folder(tmp_path) as folder:
            assert living.exists()
            assert folder.exists()

    assert other.exists()

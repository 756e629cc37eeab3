"""A checkpoint file is complete, or it is skipped."""

import os
import signal
import threading

import numpy as np
import pytest

from colabcnn.errors import Error
from colabcnn.store.checkpoint import Checkpoint, CheckpointWriter, newest_checkpoint, read_checkpoint, write_checkpoint
from colabcnn.store.checkpoint_files import checkpoint_files, epoch_of
from colabcnn.store.run_folder import verify

pytestmark = pytest.mark.versions


def checkpoint(epoch, seed=0):
    rng = np.random.default_rng([epoch, seed])
    arrays = [rng.random((3, 4), dtype=np.float32), np.array(epoch, dtype=np.int64)]
    transposed = [rng.random((5, 2)).T, np.zeros((0, 3), dtype=np.float32)]
    metadata = {"run": {"seed": seed}, "history": {"loss": [0.1, 1 / 3]}, "complete": False, "reason": ""}
    return Checkpoint(epoch, "run", {"model": arrays, "optimizer": transposed, "best": arrays[:1]}, metadata)


def same(one, other):
    assert one.epoch == other.epoch
    assert one.metadata == other.metadata
    for group in ("model", "optimizer", "best"):
        for a, b in zip(one.arrays[group], other.arrays[group], strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert a.tobytes() == b.tobytes()


def test_checkpoint_is_read_as_written_even_if_not_contiguous(tmp_path):
    written = checkpoint(7)
    same(read_checkpoint(write_checkpoint(tmp_path, written)), written)


def test_runs_folder_that_has_vanished_is_not_made_again(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_checkpoint(tmp_path / "run" / "checkpoints", checkpoint(1))
    assert not (tmp_path / "run").exists()


def test_more_than_ten_thousand_arrays_keep_their_order(tmp_path):
    many = [np.array(index) for index in range(12_000)]
    path = write_checkpoint(tmp_path, Checkpoint(1, "run", {"model": many}, {}))
    assert [int(array) for array in read_checkpoint(path).arrays["model"]] == list(range(12_000))


def test_newest_three_checkpoints_are_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("a file of the user's")
    for epoch in range(1, 13):
        write_checkpoint(tmp_path, checkpoint(epoch))
    assert [int(path.name[6:12]) for path in checkpoint_files(tmp_path)] == [12, 11, 10]
    assert (tmp_path / "notes.txt").exists()
    assert len(list(tmp_path.iterdir())) == 4


def test_fault_11_file_truncated_at_any_length_is_skipped(tmp_path):
    older = write_checkpoint(tmp_path, checkpoint(1))
    path = write_checkpoint(tmp_path, checkpoint(2))
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        found, skipped = newest_checkpoint(tmp_path)
        assert found.epoch == 1
        assert list(skipped) == [path]
        assert "truncated or altered" in skipped[path]
    assert older.exists()


def test_fault_12_every_flipped_bit_is_detected(tmp_path):
    path = write_checkpoint(tmp_path, checkpoint(2))
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        altered = bytearray(content)
        altered[bit // 8] ^= 1 << bit % 8
        path.write_bytes(altered)
        with pytest.raises(Error, match="truncated or altered"):
            read_checkpoint(path)


def test_complete_file_of_another_kind_is_refused(tmp_path):
    import hashlib

    content = b"hello"
    path = tmp_path / f"epoch-000001-{hashlib.sha256(content).hexdigest()}.safetensors"
    path.write_bytes(content)
    with pytest.raises(Error, match="not a checkpoint"):
        read_checkpoint(path)
    assert newest_checkpoint(tmp_path)[0] is None


def test_full_disk_keeps_the_older_checkpoint_and_leaves_no_partial_file(tmp_path, monkeypatch):
    import os

    write_checkpoint(tmp_path, checkpoint(1))
    before = sorted(path.name for path in tmp_path.iterdir())

    def no_room(descriptor):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(tmp_path, checkpoint(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_wait_that_was_interrupted_waits_for_the_same_file(tmp_path, monkeypatch):
    def write_slowly(*arguments):
        go_on.wait()
        write_checkpoint(*arguments)

    go_on = threading.Event()
    monkeypatch.setattr("colabcnn.store.checkpoint.write_checkpoint", write_slowly)
    writer = CheckpointWriter(tmp_path)
    writer.write(checkpoint(1))
    # In the background, a shell's processes ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            writer.wait()
    finally:
        signal.signal(signal.SIGINT, before)
        threading.Timer(0.2, go_on.set).start()
    writer.wait()
    assert [epoch_of(path) for path in checkpoint_files(tmp_path)] == [1]


def test_epochs_of_more_than_six_digits_are_found_sorted_and_retired(tmp_path):
    for epoch in (999_998, 999_999, 1_000_000, 1_000_001, 10_000_000):
        write_checkpoint(tmp_path, checkpoint(epoch))
    assert [epoch_of(path) for path in checkpoint_files(tmp_path)] == [10_000_000, 1_000_001, 1_000_000]
    newest, skipped = newest_checkpoint(tmp_path)
    assert (newest.epoch, skipped) == (10_000_000, {})


def test_newer_checkpoint_of_another_format_is_what_no_resume_passes(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "checkpoints", Checkpoint(1, "run", {"model": []}, {}))
    monkeypatch.setattr("colabcnn.store.checkpoint.FORMAT", 3)
    newer = write_checkpoint(tmp_path / "checkpoints", Checkpoint(2, "run", {"model": []}, {}))
    monkeypatch.undo()
    checkpoints, restored = verify(tmp_path)
    assert [found["fault"] is None for found in checkpoints] == [False, True]
    assert restored is None
    newer.unlink()
    assert verify(tmp_path)[1].startswith("epoch-000001-")


@pytest.mark.parametrize(("name", "words"), [("file", "is a file"), ("none", "does not exist"), ("empty", "no run")])
def test_what_is_no_run_is_not_verified(tmp_path, name, words):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(Error, match=words):
        verify(tmp_path / name)

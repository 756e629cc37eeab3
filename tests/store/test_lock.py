"""A folder holds one run at a time, and a released folder can be used again."""

import os
import time

import pytest

from colabcnn import Error
from colabcnn.store.files import write_atomically
from colabcnn.store.lock import Lock
from colabcnn.store.run_folder import RunFolder


def test_second_lock_is_refused_and_names_the_holder(tmp_path):
    with Lock(tmp_path), pytest.raises(Error, match=f"is being trained in by process {os.getpid()};"):
        Lock(tmp_path)
    Lock(tmp_path).release()


def test_lock_that_ctrl_c_interrupts_is_released(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "pwrite", interrupted)
        Lock(tmp_path)
    Lock(tmp_path).release()


def test_forked_child_neither_keeps_nor_releases_the_lock_of_its_parent(tmp_path):
    lock = Lock(tmp_path)
    child = os.fork()
    if child == 0:
        lock.release()  # The child's copy; the parent keeps its lock.
        time.sleep(60)
        os._exit(0)
    try:
        time.sleep(0.2)
        with pytest.raises(Error, match="is being trained in"):
            Lock(tmp_path)
        other = os.fork()
        if other == 0:
            time.sleep(60)
            os._exit(0)
        try:
            lock.release()
            Lock(tmp_path).release()
        finally:
            os.kill(other, 9)
            os.waitpid(other, 0)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_folder_that_another_process_makes_at_the_same_moment_can_be_written_to(tmp_path, monkeypatch):
    def write_for_both(path, text):
        write_atomically(path, text)
        path.unlink()  # The other process is done.

    monkeypatch.setattr("colabcnn.store.run_folder.write_atomically", write_for_both)
    RunFolder(tmp_path / "run").create()
    assert not list((tmp_path / "run").iterdir())


def test_forked_child_of_a_killed_process_keeps_no_lock(tmp_path):
    parent = os.fork()
    if parent == 0:
        lock = Lock(tmp_path)
        child = os.fork()
        if child == 0:
            (tmp_path / "child.partial").write_text(str(os.getpid()))
            (tmp_path / "child.partial").rename(tmp_path / "child")
            time.sleep(60)
            os._exit(0)
        time.sleep(60)
        lock.release()
        os._exit(0)
    while not (tmp_path / "child").exists():
        time.sleep(0.01)
    os.kill(parent, 9)
    os.waitpid(parent, 0)
    try:
        Lock(tmp_path).release()
    finally:
        os.kill(int((tmp_path / "child").read_text()), 9)

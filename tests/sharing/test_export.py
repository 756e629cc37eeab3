"""A run is exported as one file, with the same bytes each time."""

import hashlib
import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
import safetensors.numpy

from colabcnn import Error, export, fetch, run, status
from colabcnn.sharing.checks import read_shared
from colabcnn.store.checkpoint import newest_checkpoint
from support.shared_files import EXPERIMENT, OPTIONS, altered, split_file

# gdown 5.2 leaves the connection of a download that failed to the garbage collector.
pytestmark = [pytest.mark.versions, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]


def test_same_run_gives_the_same_bytes_and_their_digest(trained, tmp_path, capsys):
    first = export(trained, tmp_path / "first.safetensors")
    output = capsys.readouterr().out
    content = (tmp_path / "first.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == first
    assert first in output
    assert f"{len(content) / 1e6:.1f} MB" in output
    copy = shutil.copytree(trained, tmp_path / "elsewhere")
    for number in range(6):
        assert export(copy, tmp_path / f"{number}.safetensors", quiet=True) == first


def test_any_safetensors_reader_opens_an_export(trained, shared):
    best = newest_checkpoint(trained / "checkpoints")[0].arrays["best"]
    loaded = safetensors.numpy.load(shared)
    assert sorted(loaded) == [f"best/{index:04d}" for index in range(len(best))]
    assert all(np.array_equal(loaded[f"best/{index:04d}"], array) for index, array in enumerate(best))


def test_export_contains_its_own_digest(shared):
    text = json.loads(json.loads(split_file(shared)[0])["__metadata__"]["colabcnn"])
    digest = text["metadata"]["sha256"]
    assert shared.count(digest.encode()) == 1
    assert hashlib.sha256(shared.replace(digest.encode(), b"0" * 64)).hexdigest() == digest


@pytest.mark.parametrize("first_byte", [b"P", b"\x08"])
def test_file_with_the_first_byte_of_a_zip_is_read(shared, first_byte):
    """The first byte is the lowest byte of the header's size."""

    def with_reason(length):
        return altered(shared, lambda checkpoint: checkpoint.metadata.update(reason="x" * length))

    content = next(filter(lambda content: content[:1] == first_byte, map(with_reason, range(0, 300, 4))))
    assert read_shared(content)[1].experiment.name == "small"


def test_export_to_a_folder_chooses_the_file_name(trained, tmp_path):
    export(trained, tmp_path / "folder", quiet=True)
    assert (tmp_path / "folder" / "small-seed-0.safetensors").exists()
    copy = shutil.copytree(trained, tmp_path / "copy")
    export(copy, quiet=True)
    assert (copy / "small-seed-0.safetensors").exists()


@pytest.mark.newest
def test_unfinished_run_is_exported_from_its_newest_checkpoint(tmp_path, offered):
    class StopAfterSecond(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    stopped, path = tmp_path / "small" / "seed-0", tmp_path / "run.safetensors"
    run(EXPERIMENT, stopped, epochs=4, callbacks=[StopAfterSecond()], **OPTIONS)
    first = export(stopped, path, quiet=True)
    fetched = fetch(offered(path.read_bytes()), folder=tmp_path / "fetched", quiet=True)
    fetched_status = status(fetched)
    assert (fetched_status["epoch"], fetched_status["epochs"], fetched_status["complete"]) == (2, 4, False)
    run(EXPERIMENT, stopped, epochs=4, **OPTIONS)
    assert export(stopped, path, quiet=True) != first


def test_export_without_a_run_or_checkpoint_is_refused(trained, tmp_path):
    with pytest.raises(Error, match="holds no run"):
        export(tmp_path, tmp_path / "run.safetensors")
    started = tmp_path / "started"
    started.mkdir()
    shutil.copy(trained / "run.json", started)
    with pytest.raises(Error, match="none is here"):
        export(started, tmp_path / "run.safetensors")
    shutil.copytree(trained / "checkpoints", started / "checkpoints")
    for path in (started / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Error, match=r"no checkpoint that can be used: .*truncated or altered"):
        export(started, tmp_path / "run.safetensors")
    assert not (tmp_path / "run.safetensors").exists()


def test_run_that_fetch_would_refuse_is_not_exported(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("colabcnn.sharing.checks._MAX_HEADER_BYTES", 1000)
    with pytest.raises(Error, match="cannot be shared, as `fetch` would refuse it: the file's text has"):
        export(trained, tmp_path / "run.safetensors")
    assert not (tmp_path / "run.safetensors").exists()


def test_full_disk_at_export_keeps_the_older_file(trained, mount_tmpfs):
    disk = mount_tmpfs("size=8k")
    (disk / "run.safetensors").write_bytes(b"older")
    with pytest.raises(Error, match=r"No space left on device.*make room"):
        export(trained, disk / "run.safetensors", quiet=True)
    assert [(path.name, path.read_bytes()) for path in disk.iterdir()] == [("run.safetensors", b"older")]


@pytest.mark.newest
def test_export_in_a_later_session_does_not_rewrite_the_shared_file(trained, tmp_path):
    path = tmp_path / "run.safetensors"
    export(trained, path, quiet=True)
    before = path.stat()
    copy = shutil.copytree(trained, tmp_path / "later")
    (copy / "model.keras").unlink()
    export(copy, path, quiet=True)
    assert path.stat().st_ino == before.st_ino
    assert not (copy / "model.keras").exists()


def test_fetched_run_can_be_exported_again(trained, shared, tmp_path, offered):
    fetched = fetch(offered(shared), folder=tmp_path / "fetched", quiet=True)
    again = tmp_path / "again.safetensors"
    assert export(fetched, again, quiet=True) == hashlib.sha256(shared).hexdigest()
    with pytest.raises(Error, match="was shared without its checkpoint"):
        export(fetched, tmp_path / "more.safetensors", checkpoint=True)
    everything = export(trained, tmp_path / "everything.safetensors", checkpoint=True, quiet=True)
    url = offered((tmp_path / "everything.safetensors").read_bytes())
    fetched = fetch(url, everything, tmp_path / "fetched", quiet=True)
    assert export(fetched, tmp_path / "more.safetensors", checkpoint=True, quiet=True) == everything
    assert export(fetched, again, quiet=True) == hashlib.sha256(shared).hexdigest()


@pytest.mark.newest
def test_names_that_can_be_trained_can_be_shared(tmp_path, offered):
    run(replace(EXPERIMENT, name="my variant, 2"), tmp_path / "run", epochs=1, **OPTIONS)
    path = tmp_path / "run.safetensors"
    export(tmp_path / "run", path, quiet=True)
    assert fetch(offered(path.read_bytes()), folder=tmp_path / "fetched", quiet=True).is_dir()
    for name in ("a/b", "..", "a`b", "a|b", "a\nb", "x" * 101, "\U00020000" * 60):
        with pytest.raises(Error, match="name is"):
            replace(EXPERIMENT, name=name)


def test_command_line_exports_and_fetches(trained, tmp_path, run_cli, server):
    path = tmp_path / "run.safetensors"
    exported = run_cli("export", trained, "-o", path)
    assert exported.returncode == 0, exported.stderr
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest in exported.stdout
    server.files["/run.safetensors"] = path.read_bytes()
    arguments = ("fetch", f"{server.address}/run.safetensors", "--folder", tmp_path / "fetched", "--sha256")
    wrong = run_cli(*arguments, "0" * 64)
    assert wrong.returncode == 2
    assert [line for line in wrong.stderr.splitlines() if line.startswith("colabcnn: ")]
    fetched = run_cli(*arguments, digest)
    assert fetched.returncode == 0, fetched.stderr
    assert f"small/seed-0-{digest[:8]}: 2 epochs" in fetched.stdout
    run_dir = tmp_path / "fetched" / "small" / f"seed-0-{digest[:8]}"
    shown = run_cli("status", run_dir)
    assert shown.returncode == 0, shown.stderr
    assert "epoch 2 of 2, complete" in shown.stdout
    assert "None" not in shown.stdout

"""A run's newest checkpoint and small files are delivered to Drive and fetched; another run's files stay unchanged."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import colabcnn
from colabcnn import Error, own_process
from colabcnn.drive.delivery import Delivery
from colabcnn.drive.folder import DriveFolder
from colabcnn.errors import AnotherRunError
from colabcnn.store.checkpoint import Checkpoint, write_checkpoint
from colabcnn.store.checkpoint_files import checkpoint_files, epoch_of
from colabcnn.store.run_folder import RunFolder
from colabcnn.training import resume
from colabcnn.training.request import RunRequest
from colabcnn.training.resume import fetch_from_drive
from support.deliveries import deliver, fetch, restored_epoch, save, tick, wait_for_partial, wait_for_response
from support.runs import make_record
from support.shared_files import EXPERIMENT


def test_newest_checkpoint_and_small_files_are_delivered_and_fetched(tmp_path, local, deliver_to):
    drive, elsewhere = tmp_path / "drive" / "run", tmp_path / "elsewhere"
    delivery = deliver_to(drive)
    for epoch in (1, 2):
        name = deliver(delivery, epoch)
    delivery.finish(30)
    assert delivery.messages[-1] == f"Epoch 2 is in {drive}, read back and verified."
    assert (drive / "history.csv").read_bytes() == (local / "history.csv").read_bytes()
    elsewhere.mkdir()
    result = DriveFolder(elsewhere, drive).fetch(0)
    assert (result["fetched"], result["skipped"], result["unreadable"]) == (name, {}, False)
    assert restored_epoch(elsewhere) == 0  # `take` comes after the check that it is the same run.
    fetch(elsewhere, drive)
    assert restored_epoch(elsewhere) == 2
    assert fetch(elsewhere, drive, have=2)["fetched"] is None


def test_deliveries_are_minutes_apart(tmp_path, local, deliver_to):
    delivery = deliver_to(tmp_path / "drive", minutes=10)
    arrived = []
    for minute in range(1, 31):
        save(local, minute)
        delivery.clock.now = 60.0 * minute
        tick(delivery)
        arrived.append(delivery.delivered and epoch_of(delivery.delivered))
    assert sorted(set(filter(None, arrived))) == [10, 20, 30]


def test_checkpoint_of_an_interrupted_session_is_delivered_at_once(tmp_path, local, deliver_to):
    save(local, 3)
    delivery = deliver_to(tmp_path / "drive", minutes=10)
    tick(delivery)
    assert epoch_of(delivery.delivered) == 3
    measured = delivery.copy_seconds
    save(local, 4)
    tick(delivery)
    assert epoch_of(delivery.delivered) == 3
    later = deliver_to(tmp_path / "drive", minutes=10)
    deliver(later, 4)
    again = deliver_to(tmp_path / "drive", minutes=10)
    tick(again)
    assert epoch_of(again.delivered) == 4
    assert measured is not None
    assert again.copy_seconds is None  # Nothing was copied, so a delivery is not measured yet.


def test_delivery_process_that_has_died_is_replaced_for_the_last_delivery(tmp_path, local, deliver_to):
    delivery = deliver_to(tmp_path / "drive")
    delivery._process._process.kill()
    delivery._process._process.wait()
    save(local, 1)
    delivery.finish(30)
    assert epoch_of(delivery.delivered) == 1


def test_delivery_process_that_dies_in_a_delivery_is_reported_and_replaced(tmp_path, local, deliver_to):
    delivery = deliver_to(tmp_path / "drive")
    delivery._process._process.send_signal(signal.SIGSTOP)
    save(local, 1)
    delivery.tick()
    delivery._process._process.kill()
    wait_for_response(delivery)
    assert "has died" in delivery.messages[0]
    delivery.clock.now += 31
    tick(delivery)
    assert epoch_of(delivery.delivered) == 1


def test_link_to_the_runs_own_folder_is_refused(tmp_path, local, deliver_to):
    (tmp_path / "link").symlink_to(local)
    with pytest.raises(Error, match=r"is the run's own folder, perhaps by a link; .*\. Nothing was started"):
        fetch_from_drive(deliver_to(tmp_path / "link", begin=False), 0, [].append)
    assert not [*local.iterdir()]


def test_library_in_the_current_folder_is_found(tmp_path):
    code = (
        "import sys; sys.path[:] = [''] + [path for path in sys.path if path]; import colabcnn, os, time;"
        "from colabcnn.drive.delivery import Delivery; os.chdir(sys.argv[1]);"
        "delivery = Delivery('local', 'drive', minutes=0, info=print); os.mkdir('local'); delivery.fetch(0)"
    )
    shutil.copytree(Path(colabcnn.__file__).parent, tmp_path / "clone" / "colabcnn")
    command = [sys.executable, "-I", "-c", code, str(tmp_path)]
    completed = subprocess.run(command, cwd=tmp_path / "clone", capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr


def test_checkpoint_that_training_deletes_during_its_delivery_arrives_complete(local, mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    save(local, 1)
    mount.faults(hang=["write"])
    delivery.tick()
    wait_for_partial(mount)
    for epoch in range(2, 7):
        save(local, epoch)
    mount.faults()
    wait_for_response(delivery)
    assert epoch_of(delivery.delivered) == 1
    assert delivery.messages == []


def test_another_run_on_drive_stays_unchanged(tmp_path, mount, deliver_to):
    theirs = deliver_to(mount.path / "run")
    for epoch in (1, 2, 3):
        deliver(theirs, epoch)
    theirs.finish(10)
    before = {path: path.read_bytes() for path in mount.files.rglob("*") if path.is_file()}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    mine = deliver_to(mount.path / "run", begin=False, folder=elsewhere)
    with pytest.raises(AnotherRunError):
        fetch_from_drive(mine, 7, [].append, fingerprint="my run")
    mine.begin("my run")
    for epoch in (7, 8, 9):
        deliver(mine, epoch)
    mine.finish(10)
    assert {path: path.read_bytes() for path in mount.files.rglob("*") if path.is_file()} == before
    assert "holds another run" in mine.messages[0]


def test_finished_run_does_not_deliver_into_another_runs_folder(tmp_path, deliver_to):
    """Its run.json is lost; the session file names the run that owns the folder."""
    drive = tmp_path / "drive"
    theirs = deliver_to(drive)
    deliver(theirs, 1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    save(elsewhere, 9)
    mine = deliver_to(drive, begin=False, folder=elsewhere)
    mine.finish(10, fingerprint="my run")
    assert [epoch_of(path) for path in checkpoint_files(drive / "checkpoints")] == [1]
    assert "holds another run" in mine.messages[-1]


def test_missing_checkpoint_that_a_session_file_names_starts_no_run(tmp_path, local, deliver_to):
    drive = tmp_path / "drive"
    delivery = deliver_to(drive)
    deliver(delivery, 1)
    shutil.rmtree(drive / "checkpoints")
    shutil.rmtree(local / "checkpoints")
    with pytest.raises(Error, match="Nothing was started"):
        fetch_from_drive(delivery, 0, [].append)


def test_checkpoints_that_were_moved_aside_are_looked_for_no_more(tmp_path, local, deliver_to):
    drive = tmp_path / "drive"
    name = deliver(deliver_to(drive), 1)
    (drive / "checkpoints" / name).write_bytes(b"truncated")
    shutil.rmtree(local / "checkpoints")
    for _ in range(2):  # The second machine starts after the first one was stopped before its first delivery.
        delivery = deliver_to(drive, begin=False)
        assert fetch_from_drive(delivery, 0, [].append)["fetched"] is None
        delivery.begin("this run")
        wait_for_response(delivery)


def test_deleted_drive_folder_is_created_again(tmp_path, deliver_to):
    delivery = deliver_to(tmp_path / "drive")
    shutil.rmtree(tmp_path / "drive")
    deliver(delivery, 1)
    assert epoch_of(delivery.delivered) == 1


def test_partial_file_of_an_abandoned_delivery_is_removed(tmp_path, deliver_to):
    delivery = deliver_to(tmp_path / "drive")
    partial = tmp_path / "drive" / "checkpoints" / ".epoch-000001-0.safetensors.1.partial"
    partial.write_bytes(b"half")
    deliver(delivery, 1)
    assert not partial.exists()


def test_unreadable_session_file_does_not_block_the_run(tmp_path, deliver_to):
    drive = tmp_path / "drive"
    delivery = deliver_to(drive)
    deliver(delivery, 1)
    (drive / "session-1.json").unlink()
    (drive / "session-1.json").mkdir()  # Reading it fails with an error of the disk.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    fetch(elsewhere, drive)
    assert restored_epoch(elsewhere) == 1


def test_path_in_a_session_file_cannot_leave_the_folder(tmp_path, local):
    outside = tmp_path / "outside"
    name = save(outside, 5)
    drive = tmp_path / "drive"
    (drive / "checkpoints").mkdir(parents=True)
    session = {"session": 1, "identity": "", "run": None, "ended": False}
    session |= {"newest": f"../../outside/checkpoints/{name}"}
    (drive / "session-1.json").write_text(json.dumps(session))
    assert fetch(local, drive)["fetched"] is None


def test_unreadable_old_checkpoint_does_not_block_a_new_one(local):
    save(local, 1)
    (old,) = checkpoint_files(local / "checkpoints")
    old.unlink()
    old.mkdir()  # Reading it fails with an error of the disk.
    save(local, 2)
    assert restored_epoch(local) == 2


def test_last_three_valid_checkpoints_are_kept_beside_broken_ones(mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    broken = []
    for epoch in range(1, 8):
        name = deliver(delivery, epoch)
        if epoch in (4, 6):
            (mount.files / "run" / "checkpoints" / name).write_bytes(b"truncated")
            broken.append(name)
            delivery.close()  # A new process verifies every file again.
    kept = [epoch_of(path) for path in checkpoint_files(mount.files / "run" / "checkpoints")]
    assert [epoch for epoch in kept if epoch not in (4, 6)] == [7, 5, 3]


def test_run_on_drive_is_moved_aside_and_older_sessions_still_stop(tmp_path, deliver_to):
    drive = tmp_path / "drive"
    older = deliver_to(drive)
    deliver(older, 1)
    newer = deliver_to(drive, begin=False)
    kept = Path(newer.move_aside())
    assert {path.name for path in kept.iterdir()} == {"checkpoints", "history.csv"}
    assert len(checkpoint_files(kept / "checkpoints")) == 1
    newer.begin("this run")
    wait_for_response(newer)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    result = fetch(elsewhere, drive)
    assert (result["fetched"], result["skipped"]) == (None, {})
    deliver(older, 2)
    assert older.newer_session == 3


@pytest.mark.parametrize("library_inside", [False, True])
def test_modules_of_the_users_project_are_not_imported_by_drives_process(
    tmp_path, deliver_to, monkeypatch, library_inside
):
    for name in ("signal", "json", "numpy", "colab"):
        (tmp_path / "project" / f"{name}.py").parent.mkdir(exist_ok=True)
        (tmp_path / "project" / f"{name}.py").write_text("raise ZeroDivisionError")
    if library_inside:  # As where a notebook lies beside the library's folder.
        (tmp_path / "project" / "colabcnn").symlink_to(Path(colabcnn.__file__).parent)
        monkeypatch.setattr(own_process, "LIBRARY", str(tmp_path / "project"))
    monkeypatch.syspath_prepend(tmp_path / "project")
    sys.path.append(tmp_path)  # Python ignores what is no text.
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "project"))
    monkeypatch.chdir(tmp_path / "project")
    delivery = deliver_to(tmp_path / "drive")
    deliver(delivery, 1)
    assert epoch_of(delivery.delivered) == 1


def test_another_version_that_is_installed_is_not_used_by_drives_process(tmp_path, deliver_to, monkeypatch):
    installed = tmp_path / "site" / "colabcnn"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("raise ZeroDivisionError")
    start = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {own_process._START}"
    monkeypatch.setattr(own_process, "_START", start)
    delivery = deliver_to(tmp_path / "drive")
    deliver(delivery, 1)
    assert epoch_of(delivery.delivered) == 1


def test_epoch_of_seven_digits_is_delivered_and_fetched(tmp_path, local, deliver_to):
    delivery = deliver_to(tmp_path / "drive")
    for epoch in (999_999, 1_000_000):
        write_checkpoint(local / "checkpoints", Checkpoint(epoch, "fit", {"model": []}, {}))
        tick(delivery)
    assert epoch_of(delivery.delivered) == 1_000_000
    (tmp_path / "elsewhere").mkdir()
    assert epoch_of(fetch(tmp_path / "elsewhere", tmp_path / "drive")["fetched"]) == 1_000_000


@pytest.mark.parametrize(("here", "there"), [(2, 6), (6, 2), (None, 6), (6, None)])
def test_measurement_of_the_later_epoch_is_kept_here_and_on_drive(local, tmp_path, here, there):
    drive = tmp_path / "drive"
    (drive / "checkpoints").mkdir(parents=True)
    for folder, epoch in ((local, here), (drive, there)):
        if epoch is not None:
            (folder / "test.json").write_text(json.dumps({"epoch": epoch}))
    save(local, 6)
    partial = drive / ".curves.png.1.partial"
    partial.write_text("half")
    assert epoch_of(DriveFolder(local, drive).deliver(None)["delivered"]) == 6
    assert [json.loads((folder / "test.json").read_text()) for folder in (local, drive)] == [{"epoch": 6}] * 2
    assert not partial.exists()


def test_what_was_measured_of_another_run_is_not_taken(local, tmp_path):
    sizes, drive = {"data": "synthetic", "train_size": 100, "val_size": 40}, tmp_path / "drive"
    other, own = (make_record(EXPERIMENT, seed=seed, **sizes) for seed in (1, 0))
    (drive / "checkpoints").mkdir(parents=True)
    (drive / "run.json").write_text(json.dumps(other.to_json()))
    (drive / "test.json").write_text("{}")
    request = RunRequest(EXPERIMENT, local, drive, **sizes)
    delivery, refused = Delivery(local, drive, minutes=0, info=print), "holds another run: its seed is 1, now given 0"
    with contextlib.closing(delivery), pytest.raises(Error, match=refused):
        resume.find(request, RunFolder(local), delivery, print)
    assert not (local / "test.json").exists()
    (drive / "run.json").write_text(json.dumps(own.to_json()))
    with contextlib.closing(Delivery(local, drive, minutes=0, info=print)) as delivery:
        resume.find(request, RunFolder(local), delivery, print)
        assert not (local / "test.json").exists()
        save(local, 1)
        delivery.begin(own.fingerprint())
        delivery.finish(60)
    assert (local / "test.json").read_text() == "{}"

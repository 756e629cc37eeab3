"""A run survives the faults of Drive, on a real mount that dies, hangs, fails, lists stale names and has a trash.

The numbers are those of the faults that a run must survive; tests that train are in `training/test_faults.py`.
"""

import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from colabcnn import Error, own_process
from colabcnn.drive.folder import DriveFolder
from colabcnn.store import files
from colabcnn.store.checkpoint import newest_checkpoint
from colabcnn.store.checkpoint_files import checkpoint_files, epoch_of, verifies
from colabcnn.store.run_folder import verify
from colabcnn.training.resume import fetch_from_drive
from support.deliveries import deliver, fetch, restored_epoch, save, tick, wait_for_partial


def test_fault_13_missing_delivered_checkpoint_is_reported_and_the_previous_one_is_used(tmp_path, local, deliver_to):
    drive = tmp_path / "drive"
    delivery = deliver_to(drive)
    for epoch in (1, 2):
        name = deliver(delivery, epoch)
    (drive / "checkpoints" / name).unlink()
    shutil.rmtree(local / "checkpoints")
    messages = []
    delivery.keep_fetched(fetch_from_drive(delivery, 0, messages.append)["fetched"])
    assert restored_epoch(local) == 1
    assert f"Skipped: {name} was delivered to Drive, but Drive does not have it." in messages


def test_fault_13_lost_write_is_detected_by_reading_back(mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    deliver(delivery, 1)
    mount.faults(lose="epoch-")
    deliver(delivery, 2)
    assert "differs from the written file" in delivery.messages[-1]
    assert epoch_of(delivery.delivered) == 1
    assert [epoch_of(path) for path in checkpoint_files(mount.files / "run" / "checkpoints")] == [1]
    mount.faults()
    delivery.clock.now += 1000
    tick(delivery)
    assert epoch_of(delivery.delivered) == 2


def test_fault_14_any_subset_of_the_files_restores_a_complete_state_or_none(tmp_path, local):
    """Every subset of the delivered files, with the newest checkpoint complete and with it truncated."""
    drive = DriveFolder(local, tmp_path / "drive")
    drive.begin("one", "this run")
    for epoch in (1, 2, 3):
        save(local, epoch)
        drive.deliver("this run", {"session": 1, "identity": "one"})
    files = [path for path in (tmp_path / "drive").rglob("*") if path.is_file()]
    assert len(files) == 5
    subsets = itertools.chain(*(itertools.combinations(files, number) for number in range(len(files) + 1)))
    for number, (arrived, truncated) in enumerate(itertools.product(subsets, (False, True))):
        remote, target = tmp_path / f"remote-{number}", tmp_path / f"target-{number}"
        (remote / "checkpoints").mkdir(parents=True)
        target.mkdir()
        for path in arrived:
            shutil.copy(path, remote / path.relative_to(tmp_path / "drive"))
        complete = checkpoint_files(remote / "checkpoints")
        if truncated and complete:
            os.truncate(complete.pop(0), 100)
        fetch(target, remote)
        assert restored_epoch(target) == (epoch_of(complete[0]) if complete else 0)


def test_fault_15_checkpoint_missing_from_a_stale_listing_is_found(tmp_path, mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    deliver(delivery, 1)
    mount.faults(listing="stale")
    checkpoint_files(mount.path / "run" / "checkpoints")
    os.listdir(mount.path / "run")
    deliver(delivery, 2)
    delivery.finish(30)
    assert [epoch_of(path) for path in checkpoint_files(mount.path / "run" / "checkpoints")] == [1]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    fetch(elsewhere, mount.path / "run")
    assert restored_epoch(elsewhere) == 2


def test_fault_15_newer_session_missing_from_a_stale_listing_is_found(mount, deliver_to):
    older = deliver_to(mount.path / "run")
    mount.faults(listing="stale")
    os.listdir(mount.path / "run")
    deliver_to(mount.path / "run")
    assert "session-2.json" not in os.listdir(mount.path / "run")
    deliver(older, 1)
    assert older.newer_session == 2


def test_fault_15_session_that_drive_cannot_look_for_ends_no_run(mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    mount.faults(listing="stale")
    os.listdir(mount.path / "run")
    next_one = mount.files / "run" / "session-2.json"
    next_one.mkdir()  # It is not listed, and reading it fails with an error of the disk.
    deliver(delivery, 1)
    assert delivery.newer_session is None
    assert os.strerror(errno.EISDIR) in delivery.messages[0]
    next_one.rmdir()
    delivery.clock.now += 31
    tick(delivery)
    assert epoch_of(delivery.delivered) == 1


def test_fault_16_dead_mount_is_reported_once_and_polled_less_and_less_often(local, mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    requests = []
    mount.kill()
    for second in range(5, 7200, 5):
        delivery.clock.now = second
        if second % 60 == 0:
            save(local, second // 60)
        before = delivery._requested_at
        tick(delivery)
        requests += [second] if delivery._requested_at != before else []
    pauses = np.diff(requests)
    assert (np.diff(pauses) >= 0).all()
    assert pauses[0] == 30
    assert pauses[-1] == 600
    assert len(delivery.messages) == 1
    assert os.strerror(errno.ENOTCONN) in delivery.messages[0]
    assert f"kept in {local}" in delivery.messages[0]
    assert restored_epoch(local) == 119


def test_fault_16_run_on_a_dead_mount_is_not_called_missing(mount):
    mount.kill()
    with pytest.raises(Error, match=r"run cannot be read \(Transport endpoint is not connected\)"):
        verify(mount.path / "run")


def test_fault_17_nothing_is_written_to_a_plain_folder_where_the_mount_was(mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    mount.unmount()
    (mount.path / "run" / "checkpoints").mkdir(parents=True)
    deliver(delivery, 1)
    delivery.finish(10)
    assert list((mount.path / "run").rglob("*")) == [mount.path / "run" / "checkpoints"]
    assert "not in" in delivery.messages[-1]
    later = deliver_to(mount.path / "run", begin=False)
    with pytest.raises(Error, match="Transport endpoint"):
        later.fetch(0)
    assert list((mount.path / "run").rglob("*")) == [mount.path / "run" / "checkpoints"]


def test_fault_17_nothing_is_written_where_the_run_folder_was_the_mount_point(mount, deliver_to):
    delivery = deliver_to(mount.path)
    mount.unmount()
    (mount.path / "checkpoints").mkdir(parents=True)
    deliver(delivery, 1)
    assert list(mount.path.rglob("*")) == [mount.path / "checkpoints"]


def test_fault_18_waiting_checkpoints_are_delivered_when_the_mount_is_back(local, mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    deliver(delivery, 1)
    mount.unmount()
    for epoch in (2, 3):
        save(local, epoch)
        delivery.clock.now += 1000
        tick(delivery)
    assert epoch_of(delivery.delivered) == 1
    mount.mount()
    delivery.clock.now += 1000
    tick(delivery)
    assert epoch_of(delivery.delivered) == 3
    assert (mount.files / "run" / "history.csv").read_text() == "1\n2\n3\n"
    assert f"{mount.path / 'run'} responds again." in delivery.messages


def test_fault_18_newer_checkpoint_is_not_overwritten(tmp_path, mount, deliver_to):
    ahead_folder = tmp_path / "ahead"
    ahead_folder.mkdir()
    for epoch in (1, 2, 3, 4, 5):
        save(ahead_folder, epoch)
    ahead = deliver_to(mount.path / "run", folder=ahead_folder)
    tick(ahead)
    ahead.finish(30)
    behind = deliver_to(mount.path / "run")
    for epoch in (1, 2):
        deliver(behind, epoch)
    assert [epoch_of(path) for path in checkpoint_files(mount.files / "run" / "checkpoints")] == [5]
    assert (mount.files / "run" / "history.csv").read_text() == "1\n2\n3\n4\n5\n"


def test_fault_19_failed_read_is_retried_then_the_previous_checkpoint_is_used(tmp_path, local, mount, monkeypatch):
    monkeypatch.setattr(files, "_PAUSES", (0, 0, 0))
    for epoch in (1, 2):
        newest = save(local, epoch)
        drive = DriveFolder(local, mount.path / "run")
        drive.begin("one", "this run")
        drive.deliver("this run")
    for errors, epoch_found in ({"open": [errno.EIO, 2]}, 2), ({"open": [errno.EIO, 4]}, 1):
        elsewhere = tmp_path / f"elsewhere-{epoch_found}"
        elsewhere.mkdir()
        (elsewhere / "run.json").write_text("{}")
        (elsewhere / "test.json").write_text("{}")
        # The newest session's file is read before the checkpoints.
        for name in list(os.listdir(mount.files / "run")):
            if name.startswith("session-"):
                (mount.files / "run" / name).unlink()
        mount.faults(errors=errors)
        result = fetch(elsewhere, mount.path / "run")
        mount.faults()
        assert restored_epoch(elsewhere) == epoch_found
        assert set(result["skipped"]) == (set() if epoch_found == 2 else {newest})


def test_fault_19_unreadable_drive_without_a_local_checkpoint_starts_no_run(local, mount, deliver_to, monkeypatch):
    without_pauses = "import colabcnn.store.files; colabcnn.store.files._PAUSES = (0, 0, 0); from colabcnn.{} import"
    monkeypatch.setattr(own_process, "_START", own_process._START.replace("from colabcnn.{} import", without_pauses))
    drive = DriveFolder(local, mount.path / "run")
    save(local, 1)
    drive.begin("one", "this run")
    drive.deliver("this run")
    shutil.rmtree(local / "checkpoints")
    for faults in ({"errors": {"readdir": [errno.EIO, -1]}}, {"errors": {"open": [errno.EIO, -1]}}):
        mount.faults(**faults)
        with pytest.raises(Error, match="Nothing was started"):
            fetch_from_drive(deliver_to(mount.path / "run", begin=False), 0, [].append)
    mount.faults(errors={"readdir": [errno.EIO, -1]})
    messages = []
    assert fetch_from_drive(deliver_to(mount.path / "run", begin=False), 7, messages.append)["fetched"] is None
    assert "Training continues from the checkpoint here" in messages[0]


def test_fault_20_full_drive_keeps_the_last_checkpoint_and_names_the_fix(mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    deliver(delivery, 1)
    used = sum(path.stat().st_size for path in mount.files.rglob("*") if path.is_file())
    mount.faults(quota=used + 5000)
    deliver(delivery, 2)
    assert [epoch_of(path) for path in checkpoint_files(mount.files / "run" / "checkpoints")] == [1]
    assert not list((mount.files / "run").rglob("*.partial"))
    assert "empty the trash too" in delivery.messages[-1]
    assert mount.trashed_bytes() < 1000
    mount.faults()
    delivery.clock.now += 1000
    tick(delivery)
    assert epoch_of(delivery.delivered) == 2


@pytest.mark.parametrize(("missing", "kept"), [(0, [4, 3, 2]), (1, [4, 3]), (2, [3])])
def test_fault_20_older_checkpoints_make_room_on_a_full_drive(local, mount, deliver_to, missing, kept):
    delivery = deliver_to(mount.path / "run")
    for epoch in (1, 2, 3):
        deliver(delivery, epoch)
    size = checkpoint_files(local / "checkpoints")[0].stat().st_size
    used = sum(path.stat().st_size for path in mount.files.rglob("*") if path.is_file())
    mount.faults(quota=used - missing * size + 5000)
    deliver(delivery, 4)
    found = checkpoint_files(mount.files / "run" / "checkpoints")
    assert [epoch_of(path) for path in found] == kept
    assert all(map(verifies, found))
    assert not list((mount.files / "run").rglob("*.partial"))
    assert any("empty the trash too" in message for message in delivery.messages) == (4 not in kept)


def test_fault_21_checkpoints_are_emptied_before_they_go_to_the_trash(local, mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    for epoch in range(1, 11):
        size = (local / "checkpoints" / save(local, epoch)).stat().st_size
        tick(delivery)
    assert [epoch_of(path) for path in checkpoint_files(mount.files / "run" / "checkpoints")] == [10, 9, 8]
    retired = [path for path in (mount.files / ".trash").iterdir() if path.name.endswith(".safetensors")]
    assert len(retired) == 7
    assert mount.trashed_bytes() < size / 4


def test_fault_22_run_recovers_from_a_rename_that_unlinks_and_then_fails(tmp_path, mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    deliver(delivery, 1)
    mount.faults(rename="unlink first")
    deliver(delivery, 2)
    mount.kill()
    mount.unmount()
    mount.faults()
    mount.mount()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    fetch(elsewhere, mount.path / "run")
    assert restored_epoch(elsewhere) == 1
    delivery.clock.now += 1000
    tick(delivery)
    assert epoch_of(delivery.delivered) == 2


HANGING = """
import sys, time
from colabcnn.drive.delivery import Delivery
sys.path.insert(0, {tests!r})
from support.deliveries import save
from pathlib import Path
local = Path({local!r})
delivery = Delivery(local, {drive!r}, minutes=0, info=print)
delivery.begin("this run")
while not delivery._session["session"]:
    delivery.tick()
open({ready!r}, "w").close()
while not Path({go!r}).exists():
    time.sleep(0.01)
longest = 0
for epoch in range(1, 200):
    began = time.monotonic()
    delivery.tick()
    longest = max(longest, time.monotonic() - began)
    if epoch % 50 == 0:
        save(local, epoch)
    time.sleep(0.005)
assert delivery._process.busy
began = time.monotonic()
delivery.finish(2)
print("longest tick", longest, "finish", time.monotonic() - began)
"""


def test_fault_23_hanging_drive_blocks_neither_training_nor_its_end(tmp_path, local, mount):
    save(local, 1)
    paths = {"local": str(local), "drive": str(mount.path / "run"), "tests": str(Path(__file__).parents[1])}
    ready, go = tmp_path / "ready", tmp_path / "go"
    code = HANGING.format(**paths, ready=str(ready), go=str(go))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    while not ready.exists():
        assert process.poll() is None
        time.sleep(0.01)
    mount.faults(hang=["write", "create", "readdir", "open"])
    go.touch()
    output, _ = process.communicate(timeout=30)  # Ends though the call has not returned.
    assert process.returncode == 0
    _, _, longest, _, finish = output.splitlines()[-1].split()
    assert float(longest) < 5  # On a busy machine. A call that waited for Drive would never return.
    assert float(finish) < 15
    assert "it did not respond in time" in output


def test_fault_23_hanging_request_is_abandoned_and_a_new_process_delivers(local, mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    mount.faults(hang=["write"])
    save(local, 1)
    delivery.tick()
    wait_for_partial(mount)
    delivery.clock.now += 601
    delivery.tick()
    assert "has not responded for 600 s" in delivery.messages[-1]
    mount.faults()
    delivery.clock.now += 31
    tick(delivery)
    assert epoch_of(delivery.delivered) == 1


def test_fault_24_newest_session_wins_and_the_older_one_delivers_nothing(tmp_path, local, deliver_to):
    drive, elsewhere = tmp_path / "drive", tmp_path / "elsewhere"
    elsewhere.mkdir()
    older = deliver_to(drive)
    deliver(older, 1)
    newer = deliver_to(drive, folder=elsewhere)
    save(local, 2)
    before = {path: path.read_bytes() for path in drive.rglob("*") if path.is_file()}
    tick(older)
    older.finish(10)
    assert older.newer_session == 2
    assert {path: path.read_bytes() for path in drive.rglob("*") if path.is_file()} == before
    deliver(newer, 2)
    assert newer.newer_session is None
    assert epoch_of(newer.delivered) == 2


def test_fault_24_one_of_two_sessions_with_the_same_number_stops(tmp_path, deliver_to):
    """Both took number 1 before either saw the other's file; Drive keeps two files of the same name."""
    drive = tmp_path / "drive"
    one = deliver_to(drive)
    (drive / "session-1 (1).json").write_text(
        json.dumps({"session": 1, "identity": "~", "run": "this run", "newest": None, "ended": False})
    )
    deliver(one, 1)
    assert one.newer_session == 1


def test_fault_29_five_thousand_foreign_files_are_not_opened(tmp_path, local):
    drive = tmp_path / "drive"
    folder = DriveFolder(local, drive)
    save(local, 1)
    folder.begin("one", "this run")
    folder.deliver("this run")
    for number in range(5000):
        (drive / "checkpoints" / f"foreign-{number}").touch()
        (local / "checkpoints" / f"epoch-{number}.safetensors").touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    opened = []
    hook_on = True

    def hook(event, arguments):
        if hook_on and event == "open":
            opened.append(arguments[0])

    sys.addaudithook(hook)
    fetch(elsewhere, drive)
    newest_checkpoint(local / "checkpoints")
    hook_on = False
    assert restored_epoch(elsewhere) == 1
    assert len(opened) < 20

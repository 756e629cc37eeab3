"""What Drive does to a run's files, on a file system whose server is killed, hangs, refuses, lists stale and trashes.

Numbers are those of the faults that a run must survive; those that need a training are in `training/test_faults.py`.
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

from colabcnn import Error
from colabcnn.drive.folder import DriveFolder
from colabcnn.store.checkpoint import newest_checkpoint
from colabcnn.store.checkpoint_files import checkpoint_files, epoch_of
from colabcnn.training.resume import fetch_from_drive
from support.deliveries import Told, deliver, fetch, restored, save, tick


def test_fault_13_acknowledged_checkpoint_that_is_gone_is_told_and_the_one_before_is_used(tmp_path, local, deliver_to):
    drive = tmp_path / "drive"
    delivery = deliver_to(drive)
    for epoch in (1, 2):
        name = deliver(delivery, epoch)
    (drive / "checkpoints" / name).unlink()
    shutil.rmtree(local / "checkpoints")
    told = Told()
    delivery.take(fetch_from_drive(delivery, 0, told)["fetched"])
    assert restored(local) == 1
    assert f"Skipped: {name} was delivered to Drive, but Drive does not have it." in told


def test_fault_13_write_that_is_acknowledged_and_dropped_is_noticed_by_reading_back(local, mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    deliver(delivery, 1)
    mount.faults(lose="epoch-")
    deliver(delivery, 2)
    assert "differs from the written file" in delivery.said[-1]
    assert epoch_of(delivery.delivered) == 1
    assert [epoch_of(path) for path in checkpoint_files(mount.files / "run" / "checkpoints")] == [1]
    mount.faults()
    delivery.clock.now += 1000
    tick(delivery)
    assert epoch_of(delivery.delivered) == 2


def test_fault_14_whatever_has_arrived_a_whole_state_is_restored_or_none(tmp_path, local):
    """Every set of the files that were delivered, and of each set the newest checkpoint whole or cut."""
    drive = DriveFolder(local, tmp_path / "drive")
    drive.begin("one", "this run")
    for epoch in (1, 2, 3):
        save(local, epoch)
        drive.deliver("this run", {"session": 1, "identity": "one"})
    files = [path for path in (tmp_path / "drive").rglob("*") if path.is_file()]
    assert len(files) == 5
    sets = itertools.chain(*(itertools.combinations(files, number) for number in range(len(files) + 1)))
    for number, (arrived, cut) in enumerate(itertools.product(sets, (False, True))):
        there, here = tmp_path / f"there-{number}", tmp_path / f"here-{number}"
        (there / "checkpoints").mkdir(parents=True)
        here.mkdir()
        for path in arrived:
            shutil.copy(path, there / path.relative_to(tmp_path / "drive"))
        whole = checkpoint_files(there / "checkpoints")
        if cut and whole:
            os.truncate(whole.pop(0), 100)
        fetch(here, there)
        assert restored(here) == (epoch_of(whole[0]) if whole else 0)


def test_fault_15_checkpoint_that_a_stale_listing_does_not_show_is_found(tmp_path, local, mount, deliver_to):
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
    assert restored(elsewhere) == 2


def test_fault_15_newer_session_that_a_stale_listing_does_not_show_is_found(local, mount, deliver_to):
    older = deliver_to(mount.path / "run")
    mount.faults(listing="stale")
    os.listdir(mount.path / "run")
    deliver_to(mount.path / "run")
    assert "session-2.json" not in os.listdir(mount.path / "run")
    deliver(older, 1)
    assert older.newer_session == 2


def test_fault_16_mount_that_is_gone_is_told_once_and_asked_less_and_less(local, mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    asked = []
    mount.kill()
    for second in range(5, 7200, 5):
        delivery.clock.now = second
        if second % 60 == 0:
            save(local, second // 60)
        before = delivery._requested_at
        tick(delivery)
        asked += [second] if delivery._requested_at != before else []
    pauses = np.diff(asked)
    assert (np.diff(pauses) >= 0).all()
    assert pauses[0] == 30
    assert pauses[-1] == 600
    assert len(delivery.said) == 1
    assert os.strerror(errno.ENOTCONN) in delivery.said[0]
    assert f"kept in {local}" in delivery.said[0]
    assert restored(local) == 119


def test_fault_17_nothing_is_written_to_a_plain_folder_where_the_mount_was(local, mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    mount.unmount()
    (mount.path / "run" / "checkpoints").mkdir(parents=True)
    deliver(delivery, 1)
    delivery.finish(10)
    assert list((mount.path / "run").rglob("*")) == [mount.path / "run" / "checkpoints"]
    assert "not in" in delivery.said[-1]
    later = deliver_to(mount.path / "run", begin=False)
    with pytest.raises(Error, match="Transport endpoint"):
        later.fetch(0)
    assert list((mount.path / "run").rglob("*")) == [mount.path / "run" / "checkpoints"]


def test_fault_17_folder_that_is_the_mount_point_itself(local, mount, deliver_to):
    delivery = deliver_to(mount.path)
    mount.unmount()
    (mount.path / "checkpoints").mkdir(parents=True)
    deliver(delivery, 1)
    assert list(mount.path.rglob("*")) == [mount.path / "checkpoints"]


def test_fault_18_what_collected_is_delivered_when_the_mount_is_back(local, mount, deliver_to):
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
    assert f"{mount.path / 'run'} responds again." in delivery.said


def test_fault_18_nothing_newer_is_overwritten(tmp_path, local, mount, deliver_to):
    further = tmp_path / "further"
    further.mkdir()
    for epoch in (1, 2, 3, 4, 5):
        save(further, epoch)
    ahead = deliver_to(mount.path / "run", folder=further)
    tick(ahead)
    ahead.finish(30)
    behind = deliver_to(mount.path / "run")
    for epoch in (1, 2):
        deliver(behind, epoch)
    assert [epoch_of(path) for path in checkpoint_files(mount.files / "run" / "checkpoints")] == [5]
    assert (mount.files / "run" / "history.csv").read_text() == "1\n2\n3\n4\n5\n"


def test_fault_19_first_read_that_fails_is_tried_again_then_the_next_candidate(tmp_path, local, mount, deliver_to):
    for epoch in (1, 2):
        newest = save(local, epoch)
        drive = DriveFolder(local, mount.path / "run")
        drive.begin("one", "this run")
        drive.deliver("this run")
    for errors, found in ({"open": [errno.EIO, 2]}, 2), ({"open": [errno.EIO, 4]}, 1):
        elsewhere = tmp_path / f"elsewhere-{found}"
        elsewhere.mkdir()
        (elsewhere / "run.json").write_text("{}")
        (elsewhere / "test.json").write_text("{}")
        # The newest session's file is read before the checkpoints.
        for name in list(os.listdir(mount.files / "run")):
            if name.startswith("session-"):
                (mount.files / "run" / name).unlink()
        mount.faults(errors=errors)
        told = fetch(elsewhere, mount.path / "run")
        mount.faults()
        assert restored(elsewhere) == found
        assert set(told["skipped"]) == (set() if found == 2 else {newest})


def test_fault_19_unreadable_folder_and_nothing_here_begins_nothing(local, mount, deliver_to):
    drive = DriveFolder(local, mount.path / "run")
    save(local, 1)
    drive.begin("one", "this run")
    drive.deliver("this run")
    shutil.rmtree(local / "checkpoints")
    for faults in ({"errors": {"readdir": [errno.EIO, -1]}}, {"errors": {"open": [errno.EIO, -1]}}):
        mount.faults(**faults)
        with pytest.raises(Error, match="Nothing was started"):
            fetch_from_drive(deliver_to(mount.path / "run", begin=False), 0, Told())
    mount.faults(errors={"readdir": [errno.EIO, -1]})
    told = Told()
    assert fetch_from_drive(deliver_to(mount.path / "run", begin=False), 7, told)["fetched"] is None
    assert "Training continues from the checkpoint here" in told[0]


def test_fault_20_full_drive_keeps_the_last_good_one_and_says_what_to_do(local, mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    deliver(delivery, 1)
    used = sum(path.stat().st_size for path in mount.files.rglob("*") if path.is_file())
    mount.faults(quota=used + 5000)
    deliver(delivery, 2)
    assert [epoch_of(path) for path in checkpoint_files(mount.files / "run" / "checkpoints")] == [1]
    assert not list((mount.files / "run").rglob("*.partial"))
    assert "empty the trash too" in delivery.said[-1]
    assert mount.trashed_bytes() < 1000
    mount.faults()
    delivery.clock.now += 1000
    tick(delivery)
    assert epoch_of(delivery.delivered) == 2


def test_fault_21_checkpoints_that_go_to_the_trash_are_empty(local, mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    for epoch in range(1, 11):
        size = (local / "checkpoints" / save(local, epoch)).stat().st_size
        tick(delivery)
    assert [epoch_of(path) for path in checkpoint_files(mount.files / "run" / "checkpoints")] == [10, 9, 8]
    retired = [path for path in (mount.files / ".trash").iterdir() if path.name.endswith(".safetensors")]
    assert len(retired) == 7
    assert mount.trashed_bytes() < size / 4


def test_fault_22_rename_that_unlinks_first_and_then_fails_is_recovered_from(tmp_path, local, mount, deliver_to):
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
    assert restored(elsewhere) == 1
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
assert delivery._busy()
began = time.monotonic()
delivery.finish(2)
print("longest tick", longest, "finish", time.monotonic() - began)
"""


def test_fault_23_drive_that_hangs_stops_neither_training_nor_its_end(tmp_path, local, mount):
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
    assert float(longest) < 1
    assert 1.9 < float(finish) < 4
    assert "it did not respond in time" in output


def test_fault_23_request_that_hangs_is_given_up_and_a_new_process_delivers(local, mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    mount.faults(hang=["create"])
    save(local, 1)
    delivery.tick()
    delivery.clock.now += 601
    delivery.tick()
    assert "has not responded for 600 s" in delivery.said[-1]
    mount.faults()
    delivery.clock.now += 31
    tick(delivery)
    assert epoch_of(delivery.delivered) == 1


def test_fault_24_newest_session_wins_at_once_and_the_older_delivers_nothing(tmp_path, local, deliver_to):
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


def test_fault_24_two_sessions_of_one_number_do_not_both_go_on(tmp_path, local, deliver_to):
    """Both took number 1 before either saw the other's file; Drive keeps two files of that name."""
    drive = tmp_path / "drive"
    one = deliver_to(drive)
    (drive / "session-1 (1).json").write_text(
        json.dumps({"session": 1, "identity": "~", "run": "this run", "newest": None})
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
    assert restored(elsewhere) == 1
    assert len(opened) < 20

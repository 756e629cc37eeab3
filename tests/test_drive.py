"""What Drive does to a run's files, on a file system whose server is killed, hangs, refuses, lists stale and trashes.

Numbers are those of the faults that a run must survive; those that need a training are in `test_faults.py`.
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

import colabcnn
from colabcnn import Error
from colabcnn.drive.delivery import Delivery
from colabcnn.drive.folder import DriveFolder
from colabcnn.errors import AnotherRunError
from colabcnn.store.checkpoint import Checkpoint, newest_checkpoint, write_checkpoint
from colabcnn.store.checkpoint_files import checkpoint_files, epoch_of
from colabcnn.training.resume import fetch_from_drive

SERVER = Path(__file__).parent / "faulty_drive.py"


def save(folder, epoch):
    """Write the checkpoint of an epoch, whose arrays tell it, and a history; return the checkpoint's name."""
    folder.mkdir(exist_ok=True)
    arrays = {"model": [np.full((64, 64), epoch, np.float32)]}
    name = write_checkpoint(
        folder / "checkpoints", Checkpoint(epoch, "fit", arrays, {"epochs": list(range(epoch))})
    ).name
    (folder / "history.csv").write_text("".join(f"{number}\n" for number in range(1, epoch + 1)))
    return name


def restored(folder):
    """Return the epoch of the checkpoint that a run would go on from, whole and of one epoch; 0 for none."""
    checkpoint, _ = newest_checkpoint(folder / "checkpoints")
    if checkpoint is None:
        return 0
    assert (checkpoint.arrays["model"][0] == checkpoint.epoch).all()
    assert checkpoint.metadata["epochs"] == list(range(checkpoint.epoch))
    return checkpoint.epoch


@pytest.fixture
def local(tmp_path):
    (tmp_path / "local").mkdir()
    return tmp_path / "local"


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Told(list):
    """What the person was told."""

    def __call__(self, message):
        self.append(message)


@pytest.fixture
def deliver_to(local):
    """Return a function that begins a `Delivery` from `local`; it has `said` and a `clock` of the test's."""
    begun = []

    def deliver_to(drive, minutes=0, begin=True, folder=local):
        said, clock = Told(), Clock()
        delivery = Delivery(folder, drive, minutes=minutes, info=said, clock=clock)
        delivery.said, delivery.clock = said, clock
        begun.append(delivery)
        if begin:
            delivery.begin("this run")
            answered(delivery)
        return delivery

    yield deliver_to
    for delivery in begun:
        delivery.close()


def answered(delivery, seconds=30):
    """Wait until nothing is on its way."""
    deadline = time.monotonic() + seconds
    while delivery._busy():
        delivery._poll_response(0.05)
        assert time.monotonic() < deadline


def fetch(local, drive, have=0):
    """Fetch as a run does that has seen that it is the right one; return what was told."""
    told = DriveFolder(local, drive).fetch(have)
    Delivery(local, drive, minutes=0, info=print).take(told["fetched"])
    return told


def tick(delivery):
    delivery.tick()
    answered(delivery)


def deliver(delivery, epoch):
    """Save the checkpoint of an epoch and wait for what comes of its delivery; return the checkpoint's name."""
    name = save(delivery.local, epoch)
    tick(delivery)
    return name


def test_newest_checkpoint_and_small_files_arrive_and_come_back(tmp_path, local, deliver_to):
    drive, elsewhere = tmp_path / "drive" / "run", tmp_path / "elsewhere"
    delivery = deliver_to(drive)
    for epoch in (1, 2):
        name = deliver(delivery, epoch)
    delivery.finish(30)
    assert delivery.said[-1] == f"Epoch 2 is in {drive}, read back and verified."
    assert (drive / "history.csv").read_bytes() == (local / "history.csv").read_bytes()
    elsewhere.mkdir()
    told = DriveFolder(elsewhere, drive).fetch(0)
    assert (told["fetched"], told["skipped"], told["unreadable"]) == (name, {}, False)
    assert restored(elsewhere) == 0  # Not before it is seen to be of the right run.
    fetch(elsewhere, drive)
    assert restored(elsewhere) == 2
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
    assert "reads back from" in delivery.said[-1]
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


def test_process_that_dies_is_replaced_and_training_goes_on(tmp_path, local, deliver_to):
    delivery = deliver_to(tmp_path / "drive")
    delivery._process._process.kill()
    delivery._process._process.wait()
    deliver(delivery, 1)
    assert "has died" in delivery.said[0]
    delivery.clock.now += 31
    tick(delivery)
    assert epoch_of(delivery.delivered) == 1


def test_library_that_lies_in_the_current_folder_is_found(tmp_path):
    code = (
        "import sys; sys.path[:] = [''] + [path for path in sys.path if path]; import colabcnn, os, time;"
        "from colabcnn.drive.delivery import Delivery; os.chdir(sys.argv[1]);"
        "delivery = Delivery('local', 'drive', minutes=0, info=print); os.mkdir('local'); delivery.fetch(0)"
    )
    shutil.copytree(Path(colabcnn.__file__).parent, tmp_path / "clone" / "colabcnn")
    command = [sys.executable, "-I", "-c", code, str(tmp_path)]
    completed = subprocess.run(command, cwd=tmp_path / "clone", capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr


def test_checkpoint_that_training_retires_while_it_is_delivered_arrives_whole(local, mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    save(local, 1)
    mount.faults(hang=["write"])
    delivery.tick()
    time.sleep(0.5)
    for epoch in range(2, 7):
        save(local, epoch)
    mount.faults()
    answered(delivery)
    assert epoch_of(delivery.delivered) == 1
    assert delivery.said == []


def test_another_run_on_drive_is_left_alone(tmp_path, local, mount, deliver_to):
    theirs = deliver_to(mount.path / "run")
    for epoch in (1, 2, 3):
        deliver(theirs, epoch)
    theirs.finish(10)
    before = {path: path.read_bytes() for path in mount.files.rglob("*") if path.is_file()}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    mine = deliver_to(mount.path / "run", begin=False, folder=elsewhere)
    with pytest.raises(AnotherRunError):
        fetch_from_drive(mine, 7, Told(), run="my run")
    mine.begin("my run")
    for epoch in (7, 8, 9):
        deliver(mine, epoch)
    mine.finish(10)
    assert {path: path.read_bytes() for path in mount.files.rglob("*") if path.is_file()} == before
    assert "holds another run" in mine.said[0]


def test_finished_run_does_not_deliver_into_another_runs_folder(tmp_path, local, deliver_to):
    """Its run.json is lost; the session file tells whose folder it is."""
    drive = tmp_path / "drive"
    theirs = deliver_to(drive)
    deliver(theirs, 1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    save(elsewhere, 9)
    mine = deliver_to(drive, begin=False, folder=elsewhere)
    mine.finish(10, run="my run")
    assert [epoch_of(path) for path in checkpoint_files(drive / "checkpoints")] == [1]
    assert "holds another run" in mine.said[-1]


def test_checkpoint_that_a_session_names_and_nothing_else_begins_nothing(tmp_path, local, deliver_to):
    drive = tmp_path / "drive"
    delivery = deliver_to(drive)
    deliver(delivery, 1)
    shutil.rmtree(drive / "checkpoints")
    shutil.rmtree(local / "checkpoints")
    with pytest.raises(Error, match="Nothing was started"):
        fetch_from_drive(delivery, 0, Told())


def test_folder_that_went_to_the_trash_is_made_again(tmp_path, local, deliver_to):
    delivery = deliver_to(tmp_path / "drive")
    shutil.rmtree(tmp_path / "drive")
    deliver(delivery, 1)
    assert epoch_of(delivery.delivered) == 1


def test_partial_file_of_a_delivery_that_was_given_up_is_removed(tmp_path, local, deliver_to):
    delivery = deliver_to(tmp_path / "drive")
    partial = tmp_path / "drive" / "checkpoints" / ".epoch-000001-0.safetensors.1.partial"
    partial.write_bytes(b"half")
    deliver(delivery, 1)
    assert not partial.exists()


def test_unreadable_session_file_does_not_bar_the_run(tmp_path, local, deliver_to):
    drive = tmp_path / "drive"
    delivery = deliver_to(drive)
    deliver(delivery, 1)
    (drive / "session-1.json").unlink()
    (drive / "session-1.json").mkdir()  # Reading it fails with an error of the disk.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    fetch(elsewhere, drive)
    assert restored(elsewhere) == 1


def test_name_in_a_session_file_leads_nowhere_else(tmp_path, local):
    outside = tmp_path / "outside"
    name = save(outside, 5)
    drive = tmp_path / "drive"
    (drive / "checkpoints").mkdir(parents=True)
    session = {"session": 1, "identity": "", "run": None, "newest": f"../../outside/checkpoints/{name}"}
    (drive / "session-1.json").write_text(json.dumps(session))
    assert fetch(local, drive)["fetched"] is None


def test_unreadable_old_checkpoint_does_not_keep_a_new_one_from_being_written(tmp_path, local):
    save(local, 1)
    (old,) = checkpoint_files(local / "checkpoints")
    old.unlink()
    old.mkdir()  # Reading it fails with an error of the disk.
    save(local, 2)
    assert restored(local) == 2


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
    assert f"{mount.path / 'run'} answers again." in delivery.said


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


def test_last_three_good_ones_are_kept_whatever_else_lies_there(local, mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    broken = []
    for epoch in range(1, 8):
        name = deliver(delivery, epoch)
        if epoch in (4, 6):
            (mount.files / "run" / "checkpoints" / name).write_bytes(b"cut")
            broken.append(name)
            delivery.close()  # A new process trusts no name.
    kept = [epoch_of(path) for path in checkpoint_files(mount.files / "run" / "checkpoints")]
    assert [epoch for epoch in kept if epoch not in (4, 6)] == [7, 5, 3]


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
from test_drive import save
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
    paths = {"local": str(local), "drive": str(mount.path / "run"), "tests": str(SERVER.parent)}
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
    assert "it did not answer in time" in output


def test_fault_23_request_that_hangs_is_given_up_and_a_new_process_delivers(local, mount, deliver_to):
    delivery = deliver_to(mount.path / "run")
    mount.faults(hang=["create"])
    save(local, 1)
    delivery.tick()
    delivery.clock.now += 601
    delivery.tick()
    assert "has not answered for 600 s" in delivery.said[-1]
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


def test_whole_run_is_set_aside_on_drive_and_older_sessions_still_give_way(tmp_path, local, deliver_to):
    drive = tmp_path / "drive"
    older = deliver_to(drive)
    deliver(older, 1)
    newer = deliver_to(drive, begin=False)
    kept = Path(newer.move_aside())
    assert {path.name[:6] for path in kept.iterdir()} == {"epoch-", "histor"}
    newer.begin("this run")
    answered(newer)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    told = fetch(elsewhere, drive)
    assert (told["fetched"], told["skipped"]) == (None, {})
    deliver(older, 2)
    assert older.newer_session == 3

"""A session on Drive keeps other machines from its run until it ends, or is not heard of for long."""

import os
import time

import pytest

from colabcnn import run
from colabcnn.drive.folder import DriveFolder
from colabcnn.drive.sessions import newest_session
from colabcnn.sweeps import task
from colabcnn.training.request import RunRequest
from support.deliveries import save

HALF_AN_HOUR = 1800


@pytest.fixture
def machines(tmp_path):
    """Two machines' folders of one run, with the same folder on Drive."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return [DriveFolder(tmp_path / name, tmp_path / "drive") for name in ("one", "two")]


def test_claimed_run_is_active_for_other_machines_only(machines):
    one, two = machines
    assert one.claim(None, HALF_AN_HOUR) == {"active": None}
    assert not one.drive.exists()
    assert one.claim("first", HALF_AN_HOUR) == {"active": None}
    assert 0 <= two.claim("second", HALF_AN_HOUR)["active"] < 60
    assert one.claim("again", HALF_AN_HOUR) == {"active": None}
    assert newest_session(one.drive)["identity"] == "again"
    assert newest_session(one.drive)["session"] == 2


def test_released_run_is_free(machines):
    one, two = machines
    one.claim("first", HALF_AN_HOUR)
    one.release("another")
    assert two.claim(None, HALF_AN_HOUR)["active"] is not None
    one.release("first")
    assert two.claim("second", HALF_AN_HOUR) == {"active": None}


def test_session_that_is_not_heard_of_for_long_is_dead(machines):
    one, two = machines
    one.claim("first", HALF_AN_HOUR)
    long_ago, ahead = time.time() - HALF_AN_HOUR, time.time() + 24 * HALF_AN_HOUR  # The clock was set back since.
    for number, machine, then in ((1, two, long_ago), (2, one, ahead)):
        os.utime(one.drive / f"session-{number}.json", (then, then))
        assert machine.claim(f"after {number}", HALF_AN_HOUR) == {"active": None}
        assert newest_session(one.drive)["session"] == number + 1


def test_of_two_claims_at_the_same_time_one_gives_way(machines, monkeypatch):
    one, two = machines
    begin = one.begin

    def begin_and_be_replaced(identity, run):
        begin(identity, run)
        (one.drive / "session-1.json").unlink()
        two.claim("second", HALF_AN_HOUR)

    monkeypatch.setattr(one, "begin", begin_and_be_replaced)
    assert one.claim("first", HALF_AN_HOUR) == {"active": 0}


@pytest.mark.parametrize(("drive_minutes", "state"), [(10, task.WAITING), (20, task.ELSEWHERE)])
def test_session_is_dead_after_half_an_hour_or_three_deliveries(machines, drive_minutes, state):
    one, two = machines
    one.claim("first", HALF_AN_HOUR)
    then = time.time() - 40 * 60
    os.utime(one.drive / "session-1.json", (then, then))
    request = RunRequest("06_final", two.local, one.drive, drive_minutes=drive_minutes)
    assert task.check_availability(request)[0] == state


def test_run_that_has_ended_is_free(tmp_path, small_experiment, small_options):
    drive = tmp_path / "drive"
    run(small_experiment, tmp_path / "run", drive_folder=drive, **{**small_options, "epochs": 1})
    assert newest_session(drive)["ended"] is True
    assert newest_session(drive)["newest"].startswith("epoch-000001-")
    assert DriveFolder(tmp_path / "elsewhere", drive).claim(None, HALF_AN_HOUR) == {"active": None}


@pytest.mark.parametrize("newer_on_drive", [False, True])
def test_session_that_ends_without_a_checkpoint_of_its_own_leaves_the_run_free(machines, newer_on_drive):
    one, two = machines
    if newer_on_drive:
        save(two.local, 2)
        session = {**two.begin("earlier", "this run"), "identity": "earlier", "ended": True}
        two.deliver("this run", session)
        save(one.local, 1)
    session = {**one.begin("first", "this run"), "identity": "first"}
    one.deliver("this run", {**session, "ended": False})
    assert two.claim(None, HALF_AN_HOUR)["active"] is not None
    one.deliver("this run", {**session, "ended": True})
    assert two.claim("second", HALF_AN_HOUR) == {"active": None}
    assert bool(newest_session(two.drive)["newest"]) == newer_on_drive


def test_claim_takes_nothing_of_a_run_that_it_does_not_know(machines):
    one, two = machines
    save(one.local, 1)
    (one.local / "test.json").write_text("{}")
    one.deliver("a run", {**one.begin("first", "a run"), "identity": "first", "ended": True})
    assert (one.drive / "test.json").exists()
    assert two.claim("second", HALF_AN_HOUR) == {"active": None}
    assert not (two.local / "test.json").exists()

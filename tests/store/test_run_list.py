"""Folders of runs are expanded into runs, each with a short unique name."""

import errno
import os
from pathlib import Path

import pytest

from colabcnn import plot_curves
from colabcnn.errors import Error
from colabcnn.store.history import empty_history, write_history
from colabcnn.store.run_list import find_runs, list_runs, run_labels, runs_by_name
from support.runs import history_of


@pytest.fixture
def make_run(tmp_path):
    def make_run(name, history=None):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        write_history(folder / "history.csv", history or history_of(0.1, 0.2))
        return folder

    return make_run


def test_folder_of_a_run_is_that_run(make_run):
    folder = make_run("results/06_final/seed-0")
    assert list_runs(folder) == {"06_final/seed-0": folder}
    assert list_runs(str(folder)) == {"06_final/seed-0": folder}


def test_runs_at_any_depth_are_found_in_the_order_of_names_and_numbers(make_run, tmp_path):
    for name in ("06_final/seed-10", "06_final/seed-2", "02_augmentation/seed-0", "mine", "a/b/c/deep"):
        make_run(f"runs/{name}")
    found = list_runs(tmp_path / "runs")
    assert list(found) == ["02_augmentation/seed-0", "06_final/seed-2", "06_final/seed-10", "deep", "mine"]
    assert found["deep"] == tmp_path / "runs" / "a" / "b" / "c" / "deep"


def test_order_of_the_arguments_is_kept(make_run):
    late, early = make_run("z"), make_run("a")
    assert list(list_runs(late, early)) == ["z", "a"]


@pytest.mark.parametrize("inner", ["moved-aside-1", "moved-aside-12", "checkpoints", ".hidden", ".trash/x"])
def test_folders_inside_a_run_are_not_listed(make_run, inner):
    folder = make_run("06_final/seed-0")
    make_run(f"06_final/seed-0/{inner}")
    assert list(list_runs(folder.parent).values()) == [folder]


def test_run_that_was_moved_aside_is_found_by_its_own_folder(make_run):
    inner = make_run("06_final/seed-0/moved-aside-1")
    assert list(list_runs(inner).values()) == [inner]


@pytest.mark.parametrize("name", ["moved-aside-tests", "moved-aside-2nd", "checkpoints-2"])
def test_folder_with_a_similar_name_is_listed(make_run, name):
    folder = make_run(f"runs/{name}")
    assert list(list_runs(folder.parent).values()) == [folder]


def test_labels_are_just_long_enough_to_be_unique(make_run):
    folders = [make_run(name) for name in ("first/06_final/seed-0", "second/06_final/seed-0", "second/03/seed-0")]
    assert list(list_runs(*folders)) == ["first/06_final/seed-0", "second/06_final/seed-0", "03/seed-0"]


def test_run_that_is_found_twice_is_listed_once(make_run, tmp_path, monkeypatch):
    folder = make_run("06_final/seed-0")
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    assert list(list_runs(folder, tmp_path, "06_final", tmp_path / "link")) == ["06_final/seed-0"]


def test_run_without_epochs_is_listed(make_run):
    folder = make_run("just-started", empty_history())
    assert list_runs(folder) == {"just-started": folder}


def test_circular_links_end(make_run, tmp_path):
    folder = make_run("runs/a")
    (folder / "again").symlink_to(tmp_path / "runs")
    assert list(list_runs(tmp_path / "runs")) == ["a"]


def test_folder_without_a_run_is_refused(make_run, tmp_path):
    folder = make_run("runs/a")
    os.mkdir(tmp_path / "empty")
    for arguments, message in (
        ([], "there is no run to show; train one first"),
        ([folder, tmp_path / "nowhere"], "nowhere does not exist; expected the folder"),
        ([folder / "history.csv"], "history.csv is a file; expected the folder"),
        ([folder, tmp_path / "empty"], "empty holds no run; expected a history.csv"),
    ):
        with pytest.raises(Error, match=message):
            list_runs(*arguments)


def test_shortcut_is_followed_as_drive_shows_it(make_run, tmp_path):
    make_run(".shortcut-targets-by-id/1abc/07_shared/seed-0")
    (tmp_path / "MyDrive" / "other").mkdir(parents=True)
    for place in ("07_shared", "other/again"):
        (tmp_path / "MyDrive" / place).symlink_to(tmp_path / ".shortcut-targets-by-id/1abc/07_shared")
    assert list(list_runs(tmp_path / "MyDrive")) == ["07_shared/seed-0"]
    assert [path.name for path in runs_by_name([tmp_path / "MyDrive"])["07_shared"]] == ["seed-0"]


def test_links_that_lead_in_circles_are_followed_once(make_run, tmp_path, monkeypatch):
    make_run("runs/06_final/seed-0")
    for name in ("up", "again"):  # Followed forty times each, as the system allows, they would not end.
        (tmp_path / "runs/06_final/seed-0" / name).symlink_to(tmp_path / "runs")
    (tmp_path / "runs/self").symlink_to(tmp_path / "runs/self")
    opened, scandir = [], os.scandir

    def counted(path):
        opened.append(path)
        assert len(opened) < 50
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    assert list(list_runs(tmp_path / "runs")) == ["06_final/seed-0"]


def test_home_folder_is_found_by_its_sign(make_run, tmp_path, monkeypatch):
    folder = make_run("runs/06_final/seed-0")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list_runs("~/runs") == {"06_final/seed-0": folder}
    assert runs_by_name(["~/runs"])["06_final"] == [folder]
    assert plot_curves("~/runs/06_final/seed-0").axes[0].get_title() == "06_final/seed-0"


def test_folder_that_fails_is_reported(make_run, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    make_run("runs/06_final/seed-0")
    monkeypatch.setattr(Path, "glob", fail)
    with pytest.raises(Error, match=r"runs cannot be read \(Transport endpoint is not connected\); mount it again"):
        runs_by_name([tmp_path / "runs"])


@pytest.mark.parametrize("name", [7, None, "a\0b", "~nobody-of-that-name/runs"])
def test_what_is_no_path_is_refused(name):
    with pytest.raises(Error, match=r"is no path|home directory|give the full path"):
        list_runs(name)


def test_run_whose_path_is_the_end_of_another_one_has_its_full_path():
    one, other = Path("/a/seed-0"), Path("/x/a/seed-0")
    assert run_labels([one, other, other]) == ["/a/seed-0", "x/a/seed-0", "x/a/seed-0"]


def test_run_without_a_checkpoint_cannot_predict(make_run, tmp_path):
    folder = make_run("results/06_final/seed-0")
    (folder / "model.keras").touch()
    assert folder in find_runs(tmp_path / "results")
    assert folder not in find_runs(tmp_path / "results", trained=True)

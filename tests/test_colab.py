"""The first cell describes the runtime, and a run is delivered only to a mounted Drive."""

import re
import shutil
from pathlib import Path

import pytest

import colabcnn
from colabcnn import Error, colab, folder_on_drive, version, welcome
from colabcnn.notebook import advice


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """No Colab runtime, and a mount point of Drive that does not exist."""
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    monkeypatch.setattr(colab, "DRIVE_MOUNT", tmp_path / "drive")


@pytest.fixture
def in_colab(monkeypatch):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab_20260101")


@pytest.fixture
def drive(request, monkeypatch):
    """Drive's mount point with a real mount on it."""
    pytest.importorskip("mfusepy", reason="mfusepy is not installed: a real mount needs it")
    mount = request.getfixturevalue("mount")
    (mount.files / "MyDrive").mkdir()
    monkeypatch.setattr(colab, "DRIVE_MOUNT", mount.path)
    return mount


def welcome_text(capsys, code=""):
    capsys.readouterr()
    welcome(code)
    return capsys.readouterr().out


def test_welcome_shows_versions_device_and_missing_gpu(capsys):
    import keras

    first, commit, device, *others = welcome_text(capsys).splitlines()
    assert f"colabcnn {colabcnn.__version__}, keras {keras.__version__}, numpy " in first
    assert commit == f"Commit of colabcnn: {version.commit() or 'not known'}"
    assert device.startswith("Device: ")
    assert re.search(r", \d+ cores?$", device)
    assert others[0].startswith("THERE IS NO GPU. In Colab: Runtime, Change runtime type")


def test_welcome_outside_colab_mentions_no_runtime(capsys):
    lines = welcome_text(capsys).splitlines()
    assert len(lines) == 5
    assert lines[4].startswith("Google Drive is not mounted: runs stay in the folder runs")


def test_code_that_is_not_the_imported_one_is_reported(capsys, monkeypatch):
    used = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr(version, "commit", lambda: used)
    for code in ("", used, used[:7], "main"):
        assert "CODE IS NOT IN USE" not in welcome_text(capsys, code)
    assert "CODE IS NOT IN USE: 1234567." in welcome_text(capsys, "1234567")


def test_missing_drive_in_colab_is_a_warning_with_the_runtimes_age(capsys, in_colab, monkeypatch):
    monkeypatch.setattr(colab, "seconds_since_start", lambda: 2.54 * 3600)
    output = welcome_text(capsys)
    assert "This runtime is 2.5 hours old." in output
    assert output.splitlines()[-1].startswith("GOOGLE DRIVE IS NOT MOUNTED. Run the setup cell again")


def test_files_that_block_the_mount_are_named(capsys, in_colab):
    colab.DRIVE_MOUNT.mkdir()
    assert "GOOGLE DRIVE IS NOT MOUNTED. Run the setup cell again" in welcome_text(capsys)
    (colab.DRIVE_MOUNT / "MyDrive").mkdir()
    assert f"{colab.DRIVE_MOUNT} holds MyDrive, which blocks the mount: move it away." in welcome_text(capsys)


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (371_000_000, "Drive is mounted, 0.4 GB are free there; a run keeps 0.2 GB there, CIFAR-10 0.17 GB."),
        (369_000_000, "DRIVE IS NEARLY FULL: 0.37 GB are free, and a run keeps 0.2 GB there, CIFAR-10 0.17 GB."),
    ],
)
def test_mounted_drive_is_reported_with_its_free_space(capsys, in_colab, drive, monkeypatch, free, expected):
    usage = shutil.disk_usage(drive.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))
    output = welcome_text(capsys)
    assert output.splitlines()[-1].startswith(expected)
    assert "NOT MOUNTED" not in output


def test_dead_mount_is_reported_as_not_mounted(capsys, in_colab, drive):
    drive.kill()
    assert "GOOGLE DRIVE IS NOT MOUNTED." in welcome_text(capsys)


def test_folder_outside_drive_is_used_unchanged(capsys, tmp_path):
    assert folder_on_drive(tmp_path / "runs", "06_final", 3) == tmp_path / "runs" / "06_final" / "seed-3"
    assert folder_on_drive("runs", "mine", 0) == Path("runs/mine/seed-0")
    with pytest.raises(Error, match=r"the folder is 'runs '; expected no space at its ends"):
        folder_on_drive("runs ", "mine", 0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("folder", ["colabcnn", "/content/drive2/MyDrive/colabcnn"])
def test_folder_that_colab_loses_is_reported(capsys, in_colab, monkeypatch, folder):
    monkeypatch.setattr("os.path.ismount", lambda path: str(path) == "/")
    assert folder_on_drive(folder, "06_final") == Path(folder, "06_final", "seed-0")
    assert f"{folder} IS NOT ON GOOGLE DRIVE" in capsys.readouterr().out


def test_link_to_drive_is_drive(capsys, in_colab, drive, tmp_path):
    (tmp_path / "link").symlink_to(drive.path / "MyDrive")
    assert folder_on_drive(tmp_path / "link" / "runs") == tmp_path / "link" / "runs"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("folder", [None, ""])
def test_no_folder_delivers_nothing_and_colab_warns(capsys, monkeypatch, folder):
    assert folder_on_drive(folder, "06_final", 0, required=True) is None
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab_20260101")
    assert folder_on_drive(folder, "06_final", 0, required=True) is None
    assert capsys.readouterr().out == "DRIVE_FOLDER IS EMPTY: the run is lost when this session ends.\n"


def test_run_that_may_be_on_drive_is_not_started_without_drive(in_colab):
    folder = str(colab.DRIVE_MOUNT / "MyDrive" / "colabcnn")
    with pytest.raises(Error, match=r"seed-0; nothing was started\.$") as refusal:
        folder_on_drive(folder, "06_final", required=True)
    assert "allow the access" in advice(refusal.value)
    (colab.DRIVE_MOUNT / "MyDrive").mkdir(parents=True)
    with pytest.raises(Error, match=r"nothing was started\. .* blocks the mount"):
        folder_on_drive(folder, required=True)


def test_run_is_started_without_drive_outside_colab(capsys):
    assert folder_on_drive(str(colab.DRIVE_MOUNT / "MyDrive" / "colabcnn"), "06_final", required=True) is None
    assert "Google Drive is not mounted" in capsys.readouterr().out


def test_nothing_is_delivered_without_a_mount_and_a_warning_is_printed(capsys, in_colab):
    folder = str(colab.DRIVE_MOUNT / "MyDrive" / "colabcnn")
    assert folder_on_drive(folder, "06_final", 0) is None
    assert capsys.readouterr().out.startswith("GOOGLE DRIVE IS NOT MOUNTED.")
    (colab.DRIVE_MOUNT / "MyDrive").mkdir(parents=True)
    assert folder_on_drive(folder, "06_final", 0) is None
    assert "blocks the mount" in capsys.readouterr().out


@pytest.mark.parametrize("state", ["mounted", "dead"])
def test_run_is_delivered_to_a_mount_even_if_it_is_dead(capsys, in_colab, drive, state):
    if state == "dead":
        drive.kill()
    folder = drive.path / "MyDrive" / "colabcnn"
    assert folder_on_drive(str(folder), "06_final", 0, required=True) == folder / "06_final" / "seed-0"
    assert capsys.readouterr().out == ""
    drive.unmount()
    assert folder_on_drive(str(folder), "06_final", 0) is None

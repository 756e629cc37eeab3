"""A shared run is downloaded once and completely, or no part of it is kept."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from importlib import metadata

import pytest

from colabcnn import Error, export, fetch, run, status
from colabcnn.sharing import download
from support.file_server import QUOTA, SIGN_IN
from support.shared_files import COMPLETE, OPTIONS, check_refused

# gdown 5.2 leaves the connection of a download that failed to the garbage collector.
pytestmark = [pytest.mark.versions, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]

DRIVE_ID = "1AbCdEfGhIjKlMnOpQrStUvWxYz012345"


def sha256_of(content):
    return hashlib.sha256(content).hexdigest()


def test_second_fetch_downloads_nothing(shared, tmp_path, server, offered, capsys):
    url = offered(shared)
    fetched = fetch(url, folder=tmp_path / "fetched", quiet=True)
    server.requests.clear()
    assert fetch(url, folder=tmp_path / "fetched") == fetched
    assert "nothing was downloaded" in capsys.readouterr().out
    assert fetch("https://elsewhere.invalid/run", sha256_of(shared), tmp_path / "fetched", quiet=True) == fetched
    assert server.requests == []


def test_same_file_from_another_place_is_the_same_run(shared, tmp_path, server):
    server.files |= {"/one": shared, "/two": shared}
    one, two = (fetch(f"{server.address}/{name}", folder=tmp_path, quiet=True) for name in ("one", "two"))
    assert one == two
    server.requests.clear()
    for name in ("one", "two"):
        assert fetch(f"{server.address}/{name}", folder=tmp_path, quiet=True) == one
    assert server.requests == []


def test_newer_file_behind_a_link_is_fetched_by_its_digest_and_kept_for_the_link(trained, shared, tmp_path, offered):
    url = offered(shared)
    fetch(url, folder=tmp_path / "fetched", quiet=True)
    digest = export(trained, tmp_path / "newer.safetensors", checkpoint=True, quiet=True)
    assert offered((tmp_path / "newer.safetensors").read_bytes()) == url
    newer = fetch(url, digest, tmp_path / "fetched", quiet=True)
    assert fetch(url, folder=tmp_path / "fetched", quiet=True) == newer


def test_newest_run_of_a_link_is_the_one_with_the_latest_note_whatever_the_file_times(
    trained, shared, tmp_path, offered
):
    url = offered(shared)
    one = fetch(url, folder=tmp_path / "fetched", quiet=True)
    digest = export(trained, tmp_path / "other.safetensors", checkpoint=True, quiet=True)
    offered((tmp_path / "other.safetensors").read_bytes())
    two = fetch(url, digest, tmp_path / "fetched", quiet=True)
    for newest, other in ((one, two), (two, one)):
        for run_dir, fetched, file_time in ((newest, "2002-01-01", 1), (other, "2001-01-01", 2)):
            path = run_dir / "shared.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "fetched": fetched}))
            os.utime(path, (file_time, file_time))
        assert fetch(url, folder=tmp_path / "fetched", quiet=True) == newest


@pytest.mark.parametrize("where", ["beside", "behind", "in capitals"])
def test_fault_30_wrong_digest_is_refused_before_the_file_is_read(shared, tmp_path, offered, monkeypatch, where):
    monkeypatch.setattr("colabcnn.sharing.share.read_shared", lambda *arguments: pytest.fail("it was read"))
    url, digest = offered(shared), "0" * 64
    key = "SHA256" if where == "in capitals" else "sha256"
    source, options = (url, {"sha256": digest}) if where == "beside" else (f"{url}#{key}={digest}", {})
    check_refused(tmp_path / "fetched", source, sha256_of(shared), "expected 0000", **options)


def test_correct_digest_is_reported_as_the_given_one(shared, tmp_path, offered, capsys):
    fetch(f"{offered(shared)}#sha256={sha256_of(shared).upper()}", folder=tmp_path)
    assert "the one that you gave" in capsys.readouterr().out


def test_fetch_without_a_digest_reports_the_limit_of_the_check(shared, tmp_path, offered, capsys):
    fetch(offered(shared), folder=tmp_path)
    output = capsys.readouterr().out
    assert "does not prove who made it" in output
    assert sha256_of(shared) in output


def test_two_different_digests_are_refused(tmp_path):
    check_refused(tmp_path / "fetched", f"{DRIVE_ID}#sha256=" + "0" * 64, "another SHA-256", sha256="1" * 64)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "neither a URL"),
        ("run.safetensors", "neither a URL"),
        ("ftp://127.0.0.1/run.safetensors", "neither a URL"),
        ("http://[", "not a URL"),
        (7, "expected a URL"),
        ("https://drive.google.com/drive/folders/1AbCdEfGhIjKlMnOpQrStUvWxYz012345", "not a link to a file"),
        (f"{DRIVE_ID}#sha256=12", "64 hexadecimal digits"),
        (f"{DRIVE_ID}#sha256:" + "0" * 64, "expected #sha256="),
        (f"{DRIVE_ID}#digest=" + "0" * 64, "expected #sha256="),
    ],
)
def test_invalid_source_is_refused(tmp_path, source, words):
    check_refused(tmp_path / "fetched", source, words)


def test_file_here_is_fetched_by_its_path_or_its_url(shared, tmp_path):
    path = tmp_path / "a run.safetensors"
    path.write_bytes(shared)
    digest = hashlib.sha256(shared).hexdigest()
    for number, source in enumerate((path, str(path), path.as_uri(), f"{path}#sha256={digest}")):
        assert fetch(source, folder=tmp_path / str(number), quiet=True).name.endswith(digest[:8])
    check_refused(tmp_path / "fetched", f"{path}#sha256={'0' * 64}", "has the SHA-256")
    check_refused(tmp_path / "fetched", (tmp_path / "missing").as_uri(), "cannot be read (No such file or directory)")
    check_refused(tmp_path / "fetched", tmp_path.as_uri(), "cannot be read (Is a directory)")
    os.mkfifo(tmp_path / "pipe")
    check_refused(tmp_path / "fetched", (tmp_path / "pipe").as_uri(), "the file is empty")


def test_fault_30_truncated_download_is_refused(shared, tmp_path, offered):
    check_refused(tmp_path / "fetched", offered(("truncated", shared)))


def test_fault_30_page_instead_of_the_file_is_refused(tmp_path, server, offered):
    check_refused(tmp_path / "fetched", offered(("page", SIGN_IN)), "a web page", "link of the file itself")
    # gdown 6 reports the server's 404; version 5 downloads the page that comes with it.
    words = "could not be downloaded" if int(metadata.version("gdown").partition(".")[0]) > 5 else "a web page"
    check_refused(tmp_path / "fetched", f"{server.address}/missing", words)
    check_refused(tmp_path / "fetched", "http://127.0.0.1:9/run.safetensors", "the server cannot be reached")


def test_endless_download_is_stopped(tmp_path, offered, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 3_000_000)
    check_refused(tmp_path / "fetched", offered("endless"), "larger than 3,000,000 bytes")


@pytest.mark.parametrize(("share", "more"), [(0.5, 0), (1, 12 << 10)], ids=["download", "files beside the checkpoint"])
def test_full_disk_is_one_error_and_leaves_no_file(trained, tmp_path, offered, mount_tmpfs, share, more):
    export(trained, tmp_path / "run.safetensors", checkpoint=True, quiet=True)
    content = (tmp_path / "run.safetensors").read_bytes()
    disk = mount_tmpfs(f"size={int(share * len(content)) + more}")
    with pytest.raises(Error, match=r"No space left on device.*make room"):
        fetch(offered(content), folder=disk, quiet=True)
    assert [path.name for path in disk.iterdir()] == ["lock"]


def test_folder_that_is_a_file_is_refused(shared, tmp_path, offered):
    (tmp_path / "fetched").write_text("mine")
    check_refused(tmp_path / "fetched", offered(shared), "File exists")
    assert (tmp_path / "fetched").read_text() == "mine"


KILLED_WHEN_COMPLETE = """
import os, signal, sys
import colabcnn
os.rename = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
colabcnn.fetch(sys.argv[1], folder=sys.argv[2], quiet=True)
"""


def test_sigkill_in_the_download_leaves_nothing(shared, tmp_path, server, offered):
    folder = tmp_path / "fetched"
    command = [sys.executable, "-m", "colabcnn", "fetch", offered("endless"), "--folder", folder]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not server.requests:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)  # So that a part of the file is on the disk.
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert [path.name for path in folder.iterdir()] == ["lock"]
    assert fetch(offered(shared), folder=folder, quiet=True).is_dir()


def test_sigkill_before_the_final_rename_leaves_no_run_folder(shared, tmp_path, offered):
    folder, url = tmp_path / "fetched", offered(shared)
    completed = subprocess.run(
        [sys.executable, "-c", KILLED_WHEN_COMPLETE, url, folder], capture_output=True, text=True
    )
    assert completed.returncode == -signal.SIGKILL, completed.stderr
    assert [path.name[:10] for path in folder.glob(".*")] == [".fetching-"]
    assert list(folder.glob("*/seed-*")) == []
    fetched = fetch(url, folder=folder, quiet=True)
    assert fetched.is_dir()
    assert list(folder.glob(".*")) == []


@pytest.mark.parametrize(
    "source",
    [
        DRIVE_ID,
        f"https://drive.google.com/file/d/{DRIVE_ID}/view?usp=sharing",
        f"https://drive.google.com/uc?id={DRIVE_ID}&export=download",
        f"https://drive.google.com/open?id={DRIVE_ID}",
        f"https://drive.google.com/u/1/file/d/{DRIVE_ID}/view",
        f"https://drive.google.com/file/u/1/d/{DRIVE_ID}/view",
        f"https://drive.google.com/a/example.org/file/d/{DRIVE_ID}/view?resourcekey=",
        f"https://drive.google.com/a/example.org/uc?id={DRIVE_ID}",
    ],
)
def test_file_on_drive_is_fetched_by_its_id_and_by_each_kind_of_link(shared, tmp_path, server, source):
    server.files[DRIVE_ID] = shared
    fetched = fetch(source, folder=tmp_path, quiet=True)
    assert (fetched / "history.csv").exists()
    assert any(request.startswith("drive.google.com/") for request in server.requests)
    server.requests.clear()
    assert fetch(DRIVE_ID, folder=tmp_path, quiet=True) == fetched
    assert server.requests == []


def test_large_file_on_drive_is_downloaded_through_its_confirmation_page(shared, tmp_path, server, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    server.files[DRIVE_ID] = ("large", shared)
    fetched = fetch(DRIVE_ID, sha256_of(shared), tmp_path / "fetched", quiet=True)
    assert (fetched / "history.csv").exists()
    assert any("drive.usercontent.google.com/download" in request for request in server.requests)
    assert not (tmp_path / "home").exists()


def test_fault_30_quota_page_of_drive_is_shown(tmp_path, server):
    server.files[DRIVE_ID] = ("page", QUOTA)
    words = DRIVE_ID, "Too many users have viewed or downloaded this file recently"
    check_refused(tmp_path / "fetched", DRIVE_ID, *words)


def test_error_for_a_private_file_on_drive_explains_how_to_share_it(tmp_path, server):
    server.files[DRIVE_ID] = ("page", SIGN_IN)
    check_refused(tmp_path / "fetched", DRIVE_ID, "Anyone with the link")


def test_progress_is_shown_unless_quiet(shared, tmp_path, offered, capfd):
    fetch(offered(shared), folder=tmp_path / "one", quiet=True)
    assert capfd.readouterr() == ("", "")
    fetch(offered(shared), folder=tmp_path / "two")
    assert "100%" in capfd.readouterr().err


def test_another_file_with_the_same_eight_digits_is_not_accepted(shared, tmp_path, offered):
    """Eight digits of the digest name the folder; a file with the same eight can be found by trial."""
    fetched = fetch(offered(shared), folder=tmp_path, quiet=True)
    shared_json = json.loads((fetched / "shared.json").read_text())
    (fetched / "shared.json").write_text(json.dumps({**shared_json, "sha256": shared_json["sha256"][:8] + "0" * 56}))
    with pytest.raises(Error, match="holds other files"):
        fetch(offered(shared), sha256_of(shared), tmp_path, quiet=True)


@pytest.mark.parametrize(
    "shared_json",
    ["", "7", "{}", "[" * 100_000, '{"sha256": [], "sources": "x"}', '{"sha256": null, "sources": 7}', "\x00"],
    ids=["empty", "number", "dict", "nested", "lists", "none", "binary"],
)
def test_run_with_an_unreadable_shared_json_is_not_replaced(shared, tmp_path, offered, shared_json):
    url = offered(shared)
    fetched = fetch(url, folder=tmp_path, quiet=True)
    (fetched / "shared.json").write_text(shared_json)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(Error, match=r"holds other files; move it away.*No file was kept"):
        fetch(url, folder=tmp_path, quiet=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("damage", ["checkpoint", "checkpoints", "history"])
def test_damaged_fetched_run_is_downloaded_again_and_moved_aside(shared, tmp_path, offered, damage):
    url = offered(shared)
    fetched = fetch(url, folder=tmp_path, quiet=True)
    (checkpoint,) = (fetched / "checkpoints").iterdir()
    if damage == "checkpoint":
        checkpoint.write_bytes(shared[:-1])
    elif damage == "checkpoints":
        checkpoint.unlink()
        checkpoint.parent.rmdir()
        checkpoint.parent.write_text("a file")
    else:
        (fetched / "history.csv").unlink()
    assert fetch(url, folder=tmp_path, quiet=True) == fetched
    assert checkpoint.read_bytes() == shared
    assert (fetched / "history.csv").exists()
    kept = fetched.parent / "moved-aside-1" / fetched.name
    assert {path.name for path in kept.iterdir()} >= {"run.json", "shared.json", "checkpoints"}


def test_epochs_that_were_added_to_a_fetched_run_stay_when_its_newest_checkpoint_is_damaged(trained, tmp_path, offered):
    path = tmp_path / "run.safetensors"
    export(trained, path, checkpoint=True, quiet=True)
    url = offered(path.read_bytes())
    fetched = fetch(url, folder=tmp_path / "fetched", quiet=True)
    run(COMPLETE, fetched, epochs=4, **OPTIONS)
    newest = max((fetched / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    assert fetch(url, folder=tmp_path / "fetched", quiet=True) == fetched
    assert status(fetched)["epoch"] == 3

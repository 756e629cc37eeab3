"""A run that is handed on arrives as it was, or not at all."""

import gc
import hashlib
import io
import json
import os
import shutil
import stat
import struct
import subprocess
import tracemalloc
import warnings
import zipfile
from dataclasses import replace

import keras
import numpy as np
import pytest

import colabcnn
from colabcnn import ABLATIONS, Error, download, export, fetch, find_runs, load_model, predict, run, status
from file_server import QUOTA, SIGN_IN, FileServer
from runs import differences

# gdown 5.2 leaves the connection of a download that failed to the garbage collector.
pytestmark = [pytest.mark.versions, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]

EXPERIMENT = replace(ABLATIONS["06_final"], name="small", kernel_sizes=(3,), filters=(4, 4, 8), batch_size=16)
OPTIONS = {"data": "synthetic", "train_size": 100, "val_size": 40, "checkpoint_minutes": 0, "quiet": True}
DRIVE_ID = "1AbCdEfGhIjKlMnOpQrStUvWxYz012345"
PICTURE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run: tests read it and leave it alone."""
    folder = tmp_path_factory.mktemp("runs") / "small" / "seed-0"
    run(EXPERIMENT, folder, epochs=2, **OPTIONS)
    return folder


@pytest.fixture(scope="module")
def archive(trained, tmp_path_factory):
    """The bytes of that run's archive."""
    path = tmp_path_factory.mktemp("archive") / "run.zip"
    export(trained, path, quiet=True)
    return path.read_bytes()


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    server = FileServer(tmp_path_factory.mktemp("authority"))
    yield server
    server.close()


@pytest.fixture
def server(started, monkeypatch):
    for name, value in started.environment().items():
        monkeypatch.setenv(name, value)
    started.files.clear()
    started.requests.clear()
    yield started
    gc.collect()


@pytest.fixture
def offered(server):
    """Return a function that puts something on the server and returns its URL."""

    def offered(content):
        server.files["/run.zip"] = content
        return f"{server.address}/run.zip"

    return offered


def refused(folder, source, *words, **options):
    """See that a fetch is one readable error, and that nothing of it stays anywhere near."""
    before = {path for path in folder.parent.rglob("*") if path != folder}
    with pytest.raises(Error) as caught:
        fetch(source, folder=folder, quiet=True, **options)
    message = str(caught.value)
    for word in words:
        assert word in message
    assert "\n" not in message and len(message) < 700
    assert {path for path in folder.parent.rglob("*") if path != folder} - before <= {folder / "lock"}


def test_same_run_gives_the_same_bytes_and_their_digest(trained, tmp_path, capsys):
    first = export(trained, tmp_path / "first.zip")
    output = capsys.readouterr().out
    copy = shutil.copytree(trained, tmp_path / "elsewhere")
    assert export(copy, tmp_path / "second.zip", quiet=True) == first
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    assert hashlib.sha256((tmp_path / "first.zip").read_bytes()).hexdigest() == first
    assert first in output
    assert "MB" in output


def test_any_zip_tool_unpacks_it_and_its_manifest_tells_each_files_digest(archive):
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        manifest = json.loads(opened.read("manifest.json"))["files"]
        assert set(manifest) == {"run.json", "history.csv", "curves.png", "model.keras"}
        for name, told in manifest.items():
            assert hashlib.sha256(opened.read(name)).hexdigest() == told["sha256"]


def test_export_chooses_a_name_in_a_folder(trained, tmp_path):
    export(trained, tmp_path / "folder", quiet=True)
    assert (tmp_path / "folder" / "small-seed-0.zip").exists()


def test_run_that_is_not_finished_is_exported_as_it_stands(tmp_path, offered):
    class StopAfterSecond(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    stopped = tmp_path / "small" / "seed-0"
    run(EXPERIMENT, stopped, epochs=4, callbacks=[StopAfterSecond()], **OPTIONS)
    first = export(stopped, tmp_path / "first.zip", quiet=True)
    assert export(stopped, tmp_path / "again.zip", quiet=True) == first
    brought = fetch(offered((tmp_path / "first.zip").read_bytes()), folder=tmp_path / "fetched", quiet=True)
    told = status(brought)
    assert (told["epoch"], told["epochs"], told["complete"]) == (2, 4, False)
    run(EXPERIMENT, stopped, epochs=4, **OPTIONS)
    assert export(stopped, tmp_path / "second.zip", quiet=True) != first


def test_export_of_what_is_no_run_or_has_no_epoch_is_refused(trained, tmp_path):
    with pytest.raises(Error, match="holds no run"):
        export(tmp_path, tmp_path / "run.zip")
    (tmp_path / "begun").mkdir()
    shutil.copy(trained / "run.json", tmp_path / "begun")
    with pytest.raises(Error, match="has no checkpoint yet"):
        export(tmp_path / "begun", tmp_path / "run.zip")
    assert not (tmp_path / "run.zip").exists()


def test_full_disk_at_export_leaves_the_older_archive(trained, mount_tmpfs):
    disk = mount_tmpfs("size=60k")
    (disk / "run.zip").write_bytes(b"older")
    with pytest.raises(Error, match="No space left on device"):
        export(trained, disk / "run.zip", quiet=True)
    assert [(path.name, path.read_bytes()) for path in disk.iterdir()] == [("run.zip", b"older")]


def test_fetched_run_is_the_run(trained, archive, tmp_path, offered, capsys):
    brought = fetch(offered(archive), folder=tmp_path / "fetched")
    digest = hashlib.sha256(archive).hexdigest()
    assert brought == tmp_path / "fetched" / "small" / f"seed-0-{digest[:8]}"
    output = capsys.readouterr().out
    assert "does not tell who made it" in output
    assert digest in output
    for name in ("history.csv", "curves.png", "model.keras"):
        assert (brought / name).read_bytes() == (trained / name).read_bytes()
    assert json.loads((brought / "run.json").read_text()) == json.loads((trained / "run.json").read_text())
    told, own = status(brought), status(trained)
    assert {**told, "weights_sha256": own["weights_sha256"]} == own
    images = PICTURE[None].astype(np.float32) / 255
    np.testing.assert_array_equal(
        load_model(brought).predict(images, verbose=0), load_model(trained).predict(images, verbose=0)
    )
    assert predict(brought, PICTURE).probabilities == predict(trained, PICTURE).probabilities
    assert [path for path in find_runs(tmp_path / "fetched", trained=True) if path == brought]
    assert colabcnn.explore(brought, trained)


def test_fetched_run_can_be_handed_on_again(archive, tmp_path, offered):
    brought = fetch(offered(archive), folder=tmp_path / "fetched", quiet=True)
    assert export(brought, tmp_path / "again.zip", quiet=True) == hashlib.sha256(archive).hexdigest()


def test_run_with_its_checkpoint_goes_on_as_the_same_run(trained, tmp_path, offered):
    digest = export(trained, tmp_path / "run.zip", checkpoint=True, quiet=True)
    brought = fetch(offered((tmp_path / "run.zip").read_bytes()), digest, tmp_path / "fetched", quiet=True)
    whole = shutil.copytree(trained, tmp_path / "whole")
    for folder in (brought, whole):
        assert run(EXPERIMENT, folder, epochs=3, **OPTIONS).history["epoch"] == [1, 2, 3]
    assert differences(brought, whole) == []


def test_fetched_again_nothing_is_downloaded(archive, tmp_path, server, offered, capsys):
    url, digest = offered(archive), hashlib.sha256(archive).hexdigest()
    brought = fetch(url, folder=tmp_path / "fetched", quiet=True)
    server.requests.clear()
    assert fetch(url, folder=tmp_path / "fetched") == brought
    assert "nothing was downloaded" in capsys.readouterr().out
    assert fetch("https://elsewhere.invalid/run.zip", digest, tmp_path / "fetched", quiet=True) == brought
    assert server.requests == []


def test_same_archive_from_another_place_is_the_same_run(archive, tmp_path, server):
    server.files |= {"/one": archive, "/two": archive}
    one, two = (fetch(f"{server.address}/{name}", folder=tmp_path, quiet=True) for name in ("one", "two"))
    assert one == two
    server.requests.clear()
    for name in ("one", "two"):
        assert fetch(f"{server.address}/{name}", folder=tmp_path, quiet=True) == one
    assert server.requests == []


@pytest.mark.parametrize("where", ["beside", "behind"])
def test_fault_30_wrong_digest_is_refused_before_anything_is_unpacked(archive, tmp_path, offered, monkeypatch, where):
    monkeypatch.setattr("colabcnn.sharing.unpack", lambda *arguments: pytest.fail("it was unpacked"))
    url, digest = offered(archive), "0" * 64
    source, options = (url, {"sha256": digest}) if where == "beside" else (f"{url}#sha256={digest}", {})
    refused(tmp_path / "fetched", source, hashlib.sha256(archive).hexdigest(), "expected 0000", **options)


def test_right_digest_is_said_to_be_the_given_one(archive, tmp_path, offered, capsys):
    digest = hashlib.sha256(archive).hexdigest()
    fetch(f"{offered(archive)}#sha256={digest.upper()}", folder=tmp_path)
    assert "the one that you gave" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "neither a URL"),
        ("run.zip", "neither a URL"),
        ("ftp://127.0.0.1/run.zip", "neither a URL"),
        ("http://[", "no URL"),
        (7, "expected a URL"),
        ("https://drive.google.com/drive/folders/1AbCdEfGhIjKlMnOpQrStUvWxYz012345", "no link to a file"),
        (f"{DRIVE_ID}#sha256=12", "64 hexadecimal digits"),
    ],
)
def test_source_that_is_none_is_refused(tmp_path, source, words):
    refused(tmp_path / "fetched", source, words)


def test_fault_30_partial_file_is_refused(archive, tmp_path, offered):
    refused(tmp_path / "fetched", offered(("cut", archive)))


def test_fault_30_page_instead_of_the_file_is_refused(tmp_path, server, offered):
    refused(tmp_path / "fetched", offered(("page", SIGN_IN)), "a web page", "link of the file itself")
    refused(tmp_path / "fetched", f"{server.address}/missing")
    refused(tmp_path / "fetched", "http://127.0.0.1:9/run.zip", "could not be downloaded")


def test_download_that_never_ends_is_ended(tmp_path, offered, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 3_000_000)
    refused(tmp_path / "fetched", offered("endless"), "larger than 3,000,000 bytes")


@pytest.mark.parametrize("size", ["60k", "450k"])
def test_full_disk_is_one_error_and_nothing_stays(trained, tmp_path, offered, mount_tmpfs, size):
    export(trained, tmp_path / "run.zip", checkpoint=True, quiet=True)
    content = (tmp_path / "run.zip").read_bytes()
    assert 60_000 < len(content) < 450_000 < 2 * len(content)  # While it is downloaded; while it is unpacked.
    disk = mount_tmpfs(f"size={size}")
    with pytest.raises(Error, match=r"No space left on device.*make room"):
        fetch(offered(content), folder=disk, quiet=True)
    assert [path.name for path in disk.iterdir()] == ["lock"]


@pytest.mark.parametrize(
    "source",
    [
        DRIVE_ID,
        f"https://drive.google.com/file/d/{DRIVE_ID}/view?usp=sharing",
        f"https://drive.google.com/uc?id={DRIVE_ID}&export=download",
        f"https://drive.google.com/open?id={DRIVE_ID}",
    ],
)
def test_file_on_drive_by_its_id_and_by_each_of_its_links(archive, tmp_path, server, source):
    server.files[DRIVE_ID] = archive
    brought = fetch(source, folder=tmp_path, quiet=True)
    assert (brought / "model.keras").exists()
    assert any(request.startswith("drive.google.com/") for request in server.requests)
    server.requests.clear()
    assert fetch(DRIVE_ID, folder=tmp_path, quiet=True) == brought
    assert server.requests == []


def test_large_file_on_drive_is_brought_through_its_confirmation_page(archive, tmp_path, server, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    server.files[DRIVE_ID] = ("large", archive)
    brought = fetch(DRIVE_ID, hashlib.sha256(archive).hexdigest(), tmp_path / "fetched", quiet=True)
    assert (brought / "history.csv").exists()
    assert any("drive.usercontent.google.com/download" in request for request in server.requests)
    assert not (tmp_path / "home").exists()


def test_fault_30_quota_page_of_drive_is_told(tmp_path, server):
    server.files[DRIVE_ID] = ("page", QUOTA)
    refused(tmp_path / "fetched", DRIVE_ID, DRIVE_ID, "Too many users have viewed or downloaded this file recently")


def test_file_on_drive_that_is_not_shared_is_told(tmp_path, server):
    server.files[DRIVE_ID] = ("page", SIGN_IN)
    refused(tmp_path / "fetched", DRIVE_ID, "Anyone with the link")


def test_progress_is_shown_unless_quiet(archive, tmp_path, offered, capfd):
    fetch(offered(archive), folder=tmp_path / "one", quiet=True)
    assert capfd.readouterr() == ("", "")
    fetch(offered(archive), folder=tmp_path / "two")
    assert "100%" in capfd.readouterr().err


def files_of(archive):
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist() if name != "manifest.json"}


def zipped(files, *, compression=zipfile.ZIP_STORED, mode=0o100644, manifest=None):
    """Return a zip of `(name, content)` pairs, with a manifest that agrees with them."""
    told = {n: {"sha256": hashlib.sha256(c).hexdigest(), "size": len(c)} for n, c in files}
    manifest = json.dumps({"format": 1, "files": told}).encode() if manifest is None else manifest
    memory = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(memory, "w", compression) as opened:
        for name, content in [("manifest.json", manifest), *files]:
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.compress_type = 3, compression
            entry.external_attr = (0o100644 if name == "manifest.json" else mode) << 16
            opened.writestr(entry, content)
    return memory.getvalue()


def with_file(archive, name, content):
    return zipped([*files_of(archive).items(), (name, content)])


def directory_of(archive):
    """Return where the directory's first three entries begin."""
    first = struct.unpack("<L", archive[-6:-2])[0]
    second = archive.index(b"PK\x01\x02", first + 4)
    return first, second, archive.index(b"PK\x01\x02", second + 4)


def with_lying_sizes(archive):
    """Say in the directory that the first file has a gigabyte."""
    content = bytearray(archive)
    struct.pack_into("<LL", content, directory_of(archive)[0] + 20, 1 << 30, 1 << 30)
    return bytes(content)


def with_overlap(archive):
    """Say in the directory that two files lie in the same place."""
    content = bytearray(archive)
    _, second, third = directory_of(archive)
    content[third + 42 : third + 46] = content[second + 42 : second + 46]
    return bytes(content)


def altered_run(archive, **fields):
    files = files_of(archive)
    files["run.json"] = json.dumps({**json.loads(files["run.json"]), **fields}).encode()
    return zipped(list(files.items()))


def renamed(archive, name):
    files = files_of(archive)
    experiment = {**json.loads(files["run.json"])["experiment"], "name": name}
    return altered_run(archive, experiment=experiment)


def with_model(archive, content):
    return zipped(list({**files_of(archive), "model.keras": content}.items()))


def compressed_model(archive):
    memory = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(files_of(archive)["model.keras"])) as model,
        zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in model.namelist():
            bomb.writestr(name, model.read(name) + bytes(1 << 24 if name.endswith("h5") else 0))
    return with_model(archive, memory.getvalue())


HOSTILE = {
    "path that leaves the folder": (lambda a: with_file(a, "../escaped", b"x"), "no file of a run"),
    "absolute path": (lambda a: with_file(a, "/tmp/colabcnn-escaped", b"x"), "no file of a run"),
    "drive letter": (lambda a: with_file(a, "C:\\escaped", b"x"), "no file of a run"),
    "path through checkpoints": (lambda a: with_file(a, "checkpoints/../../escaped", b"x"), "no file of a run"),
    "link": (lambda a: zipped([*files_of(a).items()], mode=stat.S_IFLNK | 0o777), "a link"),
    "folder": (lambda a: with_file(a, "checkpoints/", b""), "a folder"),
    "name twice": (lambda a: zipped([*files_of(a).items(), ("run.json", b"{}")]), "twice"),
    "compressed": (lambda a: zipped([*files_of(a).items()], compression=zipfile.ZIP_DEFLATED), "compressed"),
    "bomb": (
        lambda a: zipped([*{**files_of(a), "curves.png": bytes(1 << 24)}.items()], compression=zipfile.ZIP_DEFLATED),
        "compressed",
    ),
    "bomb in the model": (compressed_model, "model.keras holds"),
    "sizes that lie": (with_lying_sizes, "more than its own"),
    "files in one place": (with_overlap, "cut or altered"),
    "60,000 files": (lambda a: zipped([(f"{n}", b"") for n in range(60_000)]), "more files than a run has"),
    "something before it": (lambda a: b"#!/bin/sh\n" + a, "no archive of a run"),
    "something behind it": (lambda a: a + b"x", "cut"),
    "nothing": (lambda a: b"", "empty"),
    "cut": (lambda a: a[:-1000], "is cut"),
    "a byte altered": (lambda a: a.replace(b"loss", b"lost", 1), ""),
    "no manifest": (
        lambda a: zipped([("history.csv", b"")]).replace(b"manifest.json", b"manifold.json"),
        "manifest.json",
    ),
    "manifest that is none": (lambda a: zipped([*files_of(a).items()], manifest=b"[" * 50_000), "cannot be read"),
    "manifest that is long": (lambda a: zipped([*files_of(a).items()], manifest=b" " * (1 << 20)), "too long"),
    "manifest of a later format": (lambda a: zipped([], manifest=b'{"format": 2, "files": {}}'), "update colabcnn"),
    "file missing": (lambda a: zipped([*files_of(a).items()][:-1]), "holds no"),
    "run of another kind": (lambda a: altered_run(a, experiment={"layers": 10}), "does not describe a run"),
    "run without a seed": (lambda a: altered_run(a, seed="../../0"), "does not describe a run"),
    "name that leaves the folder": (lambda a: renamed(a, ".."), "does not describe a run"),
    "name with a break": (lambda a: renamed(a, "a\nb"), "does not describe a run"),
    "history that is none": (lambda a: zipped([*{**files_of(a), "history.csv": b"\xff"}.items()]), "history.csv"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archive_is_one_readable_error_and_nothing_stays(archive, tmp_path, offered, kind):
    make, words = HOSTILE[kind]
    refused(tmp_path / "here" / "fetched", offered(make(archive)), words)
    assert not os.path.exists("/tmp/colabcnn-escaped")


@pytest.mark.parametrize(
    "kind", ["60,000 files", "bomb", "bomb in the model", "sizes that lie", "manifest that is long"]
)
def test_hostile_archive_takes_little_memory(archive, tmp_path, offered, kind):
    url = offered(HOSTILE[kind][0](archive))
    fetch(offered(archive), folder=tmp_path / "warm", quiet=True)  # gdown and its kin are imported.
    offered(HOSTILE[kind][0](archive))
    tracemalloc.start()
    try:
        refused(tmp_path / "here" / "fetched", url)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_model_of_a_stranger_runs_no_code(archive, tmp_path, offered):
    marker = tmp_path / "ran"
    code = f"lambda x: __import__('pathlib').Path({str(marker)!r}).touch() or x"
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Lambda(eval(code))])
    assert marker.exists()
    model.save(tmp_path / "model.keras")
    marker.unlink()
    brought = fetch(
        offered(with_model(archive, (tmp_path / "model.keras").read_bytes())), folder=tmp_path / "fetched", quiet=True
    )
    with pytest.raises(Error, match=r"model\.keras is not this run's network"):
        predict(brought, PICTURE)
    assert not marker.exists()


def test_what_a_kill_left_is_removed(archive, tmp_path, offered):
    left = tmp_path / "fetched" / ".unpacking-left"
    left.mkdir(parents=True)
    (left / "model.keras").write_bytes(b"half")
    fetch(offered(archive), folder=tmp_path / "fetched", quiet=True)
    assert not left.exists()


def test_command_line_exports_and_fetches(trained, tmp_path, run_cli, server):
    exported = run_cli("export", trained, "-o", tmp_path / "run.zip")
    assert exported.returncode == 0, exported.stderr
    content = (tmp_path / "run.zip").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert digest in exported.stdout
    server.files["/run.zip"] = content
    arguments = ("fetch", f"{server.address}/run.zip", "--folder", tmp_path / "fetched", "--sha256")
    wrong = run_cli(*arguments, "0" * 64)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert [line for line in wrong.stderr.splitlines() if line.startswith("colabcnn: ")]
    brought = run_cli(*arguments, digest)
    assert brought.returncode == 0, brought.stderr
    assert f"small/seed-0-{digest[:8]}: 2 epochs" in brought.stdout
    assert subprocess.run(["unzip", "-t", tmp_path / "run.zip"], capture_output=True).returncode in (0, 127)

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

import h5py
import keras
import numpy as np
import pytest

import colabcnn
from colabcnn import ABLATIONS, Error, export, fetch, find_runs, load_model, predict, run, status
from colabcnn.sharing import download
from colabcnn.store.checkpoint import newest_checkpoint, write_checkpoint
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


def test_two_digests_that_differ_are_refused(tmp_path):
    refused(tmp_path / "fetched", f"{DRIVE_ID}#sha256=" + "0" * 64, "another SHA-256", sha256="1" * 64)


@pytest.mark.parametrize("where", ["beside", "behind", "in capitals"])
def test_fault_30_wrong_digest_is_refused_before_anything_is_unpacked(archive, tmp_path, offered, monkeypatch, where):
    monkeypatch.setattr("colabcnn.sharing.share.unpack", lambda *arguments: pytest.fail("it was unpacked"))
    url, digest = offered(archive), "0" * 64
    key = "SHA256" if where == "in capitals" else "sha256"
    source, options = (url, {"sha256": digest}) if where == "beside" else (f"{url}#{key}={digest}", {})
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
        (f"{DRIVE_ID}#sha256:" + "0" * 64, "expected #sha256="),
        (f"{DRIVE_ID}#digest=" + "0" * 64, "expected #sha256="),
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


def with_far_offset(archive):
    """Say in the directory that a file begins behind the archive's end."""
    content = bytearray(archive)
    struct.pack_into("<L", content, directory_of(archive)[2] + 42, 0xFFFFFFFE)
    return bytes(content)


def with_flag(archive, flag):
    content = bytearray(archive)
    content[directory_of(archive)[2] + 8] |= flag
    return bytes(content)


def altered_experiment(archive, **fields):
    return altered_run(archive, experiment={**json.loads(files_of(archive)["run.json"])["experiment"], **fields})


def started_on(archive, **fields):
    (start,) = json.loads(files_of(archive)["run.json"])["starts"]
    return altered_run(archive, starts=[{**start, **fields}])


def with_history(archive, *values):
    """Replace the history by one row, in which a value gives way to another, by one of a value, or by none."""
    header = files_of(archive)["history.csv"].splitlines()[0] + b"\n"
    row = b"1,2.5,0.5,2.5,0.5,0.001,1.0\n".replace(*values) if len(values) == 2 else b"".join(values)
    return zipped([*{**files_of(archive), "history.csv": header + row}.items()])


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
    "something before it": (lambda a: b"#!/bin/sh\n" + a, "no zip"),
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
    "directory that leads out": (with_far_offset, ""),
    "run of another kind": (lambda a: altered_run(a, experiment={"layers": 10}), "unknown to this version"),
    "run that is no 06": (lambda a: renamed(a, "06_final"), "still carries the name"),
    "network that is larger than its weights": (lambda a: altered_experiment(a, filters=[9000, 9000, 8]), "run.json"),
    "network without end": (lambda a: altered_experiment(a, kernel_sizes=[1] * 200_000), "run.json"),
    "more images than there are": (lambda a: altered_run(a, val_size=10**7), "run.json"),
    "negative size": (lambda a: altered_run(a, train_size=-1), "run.json"),
    "size that is true": (lambda a: altered_run(a, epochs=True), "run.json"),
    "data elsewhere": (lambda a: altered_run(a, data="/etc"), "run.json"),
    "precision that is none": (lambda a: altered_run(a, precision="float8"), "run.json"),
    "digest that is none": (lambda a: altered_run(a, data_sha256="x"), "run.json"),
    "device that calls home": (lambda a: started_on(a, device="![T4](https://evil.example/a.png)"), "run.json"),
    "device that owns the terminal": (lambda a: started_on(a, device="\x1b]0;owned\x07"), "run.json"),
    "time that is none": (lambda a: started_on(a, time=7), "run.json"),
    "first epoch that is none": (lambda a: started_on(a, first_epoch="1"), "run.json"),
    "accuracy past 1": (lambda a: with_history(a, b"0.5", b"1.5"), "accuracies from 0 to 1"),
    "loss without end": (lambda a: with_history(a, b"2.5", b"inf"), "finite"),
    "epochs that begin at 2": (lambda a: with_history(a, b"1,2.5", b"2,2.5"), "counted from 1"),
    "history of no epoch": (lambda a: with_history(a), "counted from 1"),
    "field without end": (lambda a: with_history(a, b"1" * 200_000), "history.csv"),
    "run.json without end": (lambda a: altered_run(a, more="x" * (5 << 20)), "too long"),
    "encrypted": (lambda a: with_flag(a, 1), "encrypted"),
    "empty model": (lambda a: with_model(a, b""), "model.keras is no zip, but empty"),
    "run without a seed": (lambda a: altered_run(a, seed="../../0"), "does not describe a run"),
    "name that leaves the folder": (lambda a: renamed(a, ".."), "name is"),
    "name with a break": (lambda a: renamed(a, "a\nb"), "name is"),
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


def stranger(archive, tmp_path, offered, model):
    """Fetch a run whose model.keras is that file."""
    return fetch(offered(with_model(archive, model)), folder=tmp_path / "fetched", quiet=True)


def test_model_of_a_stranger_runs_no_code(archive, tmp_path, offered):
    marker = tmp_path / "ran"
    code = f"lambda x: __import__('pathlib').Path({str(marker)!r}).touch() or x"
    layers = [keras.Input((32, 32, 3)), keras.layers.Lambda(eval(code)), keras.layers.Conv2D(200, 9)]
    model = keras.Sequential(layers)
    assert marker.exists()
    model.save(tmp_path / "model.keras")
    marker.unlink()
    brought = stranger(archive, tmp_path, offered, (tmp_path / "model.keras").read_bytes())
    with pytest.raises(Error, match=r"model\.keras is not this run's network"):
        predict(brought, PICTURE)
    assert not marker.exists()


def rewritten(model, change):
    """Return a model.keras whose weights, an open `h5py.File`, were changed."""
    with zipfile.ZipFile(io.BytesIO(model)) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    weights = io.BytesIO(files["model.weights.h5"])
    with h5py.File(weights, "r+") as opened:
        names = []
        opened.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        change(opened, names[0])
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as opened:
        for name, content in {**files, "model.weights.h5": weights.getvalue()}.items():
            opened.writestr(name, content)
    return memory.getvalue()


def with_bomb(weights, name):
    del weights[name]
    weights.create_dataset(name, (10**6, 10**6), "f4", chunks=(1000, 1000), compression="gzip")


def with_link(weights, name):
    del weights[name]
    weights[name] = h5py.ExternalLink("/tmp/elsewhere.h5", "/x")


def with_elsewhere(weights, name):
    shape = weights[name].shape
    del weights[name]
    weights.create_dataset(name, shape, "f4", external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)])


@pytest.mark.parametrize("change", [with_bomb, with_link, with_elsewhere])
def test_weights_of_a_stranger_are_plain_arrays_that_lie_in_the_file(archive, tmp_path, offered, change):
    brought = stranger(archive, tmp_path, offered, rewritten(files_of(archive)["model.keras"], change))
    with pytest.raises(Error, match=r"is not this run's network \(it holds"):
        predict(brought, PICTURE)


def with_checkpoint(trained, tmp_path, alter):
    """Return an archive with a checkpoint whose metadata and arrays `alter` has changed."""
    export(trained, tmp_path / "whole.zip", checkpoint=True, quiet=True)
    files = files_of((tmp_path / "whole.zip").read_bytes())
    (name,) = [name for name in files if name.startswith("checkpoints/")]
    checkpoint, _ = newest_checkpoint(trained / "checkpoints")
    metadata, arrays = json.loads(json.dumps(checkpoint.metadata)), dict(checkpoint.arrays)
    alter(metadata, arrays)
    written = write_checkpoint(tmp_path / "altered", replace(checkpoint, metadata=metadata, arrays=arrays))
    del files[name]
    return zipped([*files.items(), (f"checkpoints/{written.name}", written.read_bytes())])


@pytest.mark.parametrize(
    "alter",
    [
        lambda metadata, arrays: metadata.update(run={}),
        lambda metadata, arrays: metadata["run"].update(seed=5),
        lambda metadata, arrays: metadata["history"].update(val_accuracy=["0.9", "0.9"]),
        lambda metadata, arrays: metadata["history"].update(val_accuracy=[0.99, 0.99]),
        lambda metadata, arrays: arrays.pop("best"),
        lambda metadata, arrays: metadata.update(callbacks={}),
        lambda metadata, arrays: metadata.update(reason="\x1b[31m"),
        lambda metadata, arrays: metadata.pop("complete"),
    ],
)
def test_checkpoint_that_does_not_agree_with_the_run_is_refused(trained, tmp_path, offered, alter):
    content = with_checkpoint(trained, tmp_path, alter)
    refused(tmp_path / "here" / "fetched", offered(content), "does not agree")


def test_callbacks_of_a_strangers_checkpoint_change_no_path_of_ones_own(trained, tmp_path, offered):
    victim = tmp_path / "thesis.weights.h5"
    victim.write_text("mine")

    def alter(metadata, arrays):
        values = {"filepath": str(victim), "best": None, "_batches_seen_since_last_saving": 0, "_last_batch_seen": 0}
        metadata["callbacks"] = [{"class": "ModelCheckpoint", "values": values}]

    brought = fetch(offered(with_checkpoint(trained, tmp_path, alter)), folder=tmp_path / "fetched", quiet=True)
    mine = keras.callbacks.ModelCheckpoint(str(tmp_path / "mine.weights.h5"), save_weights_only=True)
    run(EXPERIMENT, brought, epochs=3, callbacks=[mine], **OPTIONS)
    assert victim.read_text() == "mine"
    assert (tmp_path / "mine.weights.h5").exists()


def test_another_archive_never_stands_for_the_one_with_the_digest(archive, tmp_path, offered):
    """Eight digits name the folder, and eight digits can be had by trying."""
    brought = fetch(offered(archive), folder=tmp_path, quiet=True)
    record = json.loads((brought / "fetched.json").read_text())
    (brought / "fetched.json").write_text(json.dumps({**record, "sha256": record["sha256"][:8] + "0" * 56}))
    with pytest.raises(Error, match="holds something else"):
        fetch(offered(archive), hashlib.sha256(archive).hexdigest(), tmp_path, quiet=True)


def test_damaged_fetched_run_is_brought_again_and_the_damaged_one_kept(archive, tmp_path, offered):
    url = offered(archive)
    brought = fetch(url, folder=tmp_path, quiet=True)
    (brought / "model.keras").write_bytes(b"cut")
    with pytest.raises(Error, match="bring the run again"):
        predict(brought, PICTURE)
    assert fetch(url, folder=tmp_path, quiet=True) == brought
    assert predict(brought, PICTURE)
    assert (brought.parent / "set-aside-1" / brought.name / "model.keras").read_bytes() == b"cut"


def test_newer_file_behind_a_link_is_brought_by_its_digest_and_is_then_the_links(trained, archive, tmp_path, offered):
    url = offered(archive)
    fetch(url, folder=tmp_path / "fetched", quiet=True)
    digest = export(trained, tmp_path / "newer.zip", checkpoint=True, quiet=True)
    assert offered((tmp_path / "newer.zip").read_bytes()) == url
    newer = fetch(url, digest, tmp_path / "fetched", quiet=True)
    assert fetch(url, folder=tmp_path / "fetched", quiet=True) == newer


def test_run_handed_on_without_its_checkpoint_says_so(archive, tmp_path, offered):
    brought = fetch(offered(archive), folder=tmp_path, quiet=True)
    with pytest.raises(Error, match="handed on without its checkpoint"):
        run(EXPERIMENT, brought, epochs=3, **OPTIONS)
    with pytest.raises(Error, match="handed on without its checkpoint"):
        colabcnn.evaluate(brought)
    assert (brought / "history.csv").exists()


def test_fetched_runs_stand_behind_ones_own_and_are_marked(trained, archive, tmp_path, offered):
    own = tmp_path / "own" / "small" / "seed-7"
    shutil.copytree(trained, own)
    brought = fetch(offered(archive), folder=tmp_path / "fetched", quiet=True)
    assert find_runs(tmp_path / "fetched", tmp_path / "own", name="small") == [own, brought]
    table = colabcnn.summarize(tmp_path / "fetched", tmp_path / "own").splitlines()
    assert ["handed on" in row for row in table if "`small`" in row] == [False, True]


def test_table_takes_no_markup_from_a_run(trained, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "small" / "seed-0")
    recorded = json.loads((copy / "run.json").read_text())
    recorded["starts"][0]["device"] = "<img src=x> | a\nb"
    (copy / "run.json").write_text(json.dumps(recorded))
    (row,) = [line for line in colabcnn.summarize(tmp_path).splitlines() if "`small`" in line]
    assert "&lt;img src=x&gt; \\| a b" in row


def test_export_in_a_later_session_leaves_the_shared_file_alone(trained, tmp_path):
    export(trained, tmp_path / "run.zip", quiet=True)
    before = (tmp_path / "run.zip").stat()
    copy = shutil.copytree(trained, tmp_path / "later")
    (copy / "model.keras").unlink()
    export(copy, tmp_path / "run.zip", quiet=True)
    assert (tmp_path / "run.zip").stat().st_ino == before.st_ino
    assert not (copy / "model.keras").exists()


def test_names_that_can_be_trained_can_be_handed_on(tmp_path, offered):
    run(replace(EXPERIMENT, name="my variant, 2"), tmp_path / "run", epochs=1, **OPTIONS)
    export(tmp_path / "run", tmp_path / "run.zip", quiet=True)
    assert fetch(offered((tmp_path / "run.zip").read_bytes()), folder=tmp_path / "f", quiet=True).is_dir()
    for name in ("a/b", "..", "a`b", "a|b", "a\nb", "x" * 101, "\U00020000" * 60):
        with pytest.raises(Error, match="name is"):
            replace(EXPERIMENT, name=name)


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
    assert wrong.returncode == 2
    assert [line for line in wrong.stderr.splitlines() if line.startswith("colabcnn: ")]
    brought = run_cli(*arguments, digest)
    assert brought.returncode == 0, brought.stderr
    assert f"small/seed-0-{digest[:8]}: 2 epochs" in brought.stdout
    assert subprocess.run(["unzip", "-t", tmp_path / "run.zip"], capture_output=True).returncode in (0, 127)

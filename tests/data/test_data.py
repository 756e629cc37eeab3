"""CIFAR-10 is loaded completely from official files, or refused with one clear error."""

import functools
import hashlib
import http.server
import io
import os
import pickle
import shutil
import socketserver
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from colabcnn import Error, load_cifar10
from colabcnn.data import cifar10 as data_module
from colabcnn.data.cifar10 import FILE_MD5
from colabcnn.data.split import split_data


@pytest.fixture
def official_copy(cifar10_folder, tmp_path):
    """A folder of links to the official files, which a test may replace."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in FILE_MD5:
        (folder / name).symlink_to(cifar10_folder / name)
    return folder


@pytest.mark.versions
def test_official_files_load(cifar10_folder):
    (train_images, train_labels), (test_images, test_labels) = load_cifar10(cifar10_folder)
    assert (train_images.shape, train_images.dtype) == ((50000, 32, 32, 3), np.uint8)
    assert (test_images.shape, test_images.dtype) == ((10000, 32, 32, 3), np.uint8)
    assert (train_labels.shape, train_labels.dtype) == ((50000,), np.int64)
    assert np.bincount(train_labels).tolist() == [5000] * 10
    assert np.bincount(test_labels).tolist() == [1000] * 10
    assert (train_labels[0], train_labels[1]) == (6, 9)  # A frog, then a truck.
    assert train_images[0, 0, 0].tolist() == [59, 62, 63]


def test_data_is_found_by_the_parent_folder_and_by_the_environment_variable(official_copy, monkeypatch):
    by_parent = load_cifar10(official_copy.parent)
    monkeypatch.setenv("CIFAR10_DIR", str(official_copy))
    by_variable = load_cifar10()
    assert np.array_equal(by_parent[1][0], by_variable[1][0])


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
def test_damaged_file_is_refused_before_it_is_unpickled(official_copy, damage, monkeypatch):
    path = official_copy / "data_batch_3"
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "truncated":
        del content[-1000:]
    elif damage == "altered":
        content[20_000_000] ^= 1
    else:
        content.clear()
    path.write_bytes(content)
    opened = []
    loads = pickle.loads
    monkeypatch.setattr(pickle, "loads", lambda content, **options: opened.append(1) or loads(content, **options))
    with pytest.raises(Error, match=r"data_batch_3 is not the official CIFAR-10 file: .* expected 54ebc095"):
        load_cifar10(official_copy)
    assert len(opened) == 5  # The other files are read in parallel.


class Hostile:
    """The pickle of this object writes a file when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_hostile_pickle_is_never_opened(tmp_path):
    victim = tmp_path / "victim"
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(Hostile(str(victim))))
    with pytest.raises(Error, match="data_batch_1 is not the official"):
        load_cifar10(tmp_path)
    assert not victim.exists()


def test_error_names_the_missing_file_or_folder(official_copy, tmp_path):
    (official_copy / "test_batch").unlink()
    with pytest.raises(Error, match="test_batch cannot be read"):
        load_cifar10(official_copy)
    with pytest.raises(Error, match="nowhere does not exist; expected a folder with"):
        load_cifar10(tmp_path / "nowhere")


# The download, from a server of the test's own.


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home folder, and no variable that names another folder."""
    monkeypatch.delenv("CIFAR10_DIR", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras"


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Serve an archive in place of the official one."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *arguments: None)
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(
        data_module, "ARCHIVE_URL", f"http://127.0.0.1:{server.server_address[1]}/{data_module.ARCHIVE_NAME}"
    )

    def serve(content):
        (folder / data_module.ARCHIVE_NAME).write_bytes(content)
        monkeypatch.setattr(data_module, "ARCHIVE_SHA256", hashlib.sha256(content).hexdigest())

    yield serve
    server.shutdown()
    server.server_close()


def archive_of(files):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", compresslevel=0) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


@pytest.fixture(scope="module")
def archive(cifar10_folder):
    """The bytes of an archive of the official files."""
    return archive_of({name: (cifar10_folder / name).read_bytes() for name in FILE_MD5})


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.versions
def test_download_is_kept_and_the_second_load_needs_no_network(archive, home, serve, monkeypatch):
    serve(archive)
    first = load_cifar10()
    monkeypatch.setattr(data_module, "ARCHIVE_URL", "http://127.0.0.1:9/nothing")
    second = load_cifar10()
    assert np.array_equal(first[0][0], second[0][0])
    kept = home / "datasets" / "cifar-10-batches-py-target" / "cifar-10-batches-py"
    assert files_in(home / "datasets") == sorted(str((kept / name).relative_to(home / "datasets")) for name in FILE_MD5)


def test_download_that_drive_cannot_keep_is_used(archive, home, serve, monkeypatch, tmp_path, capsys):
    (tmp_path / "MyDrive").mkdir()
    (tmp_path / "MyDrive" / "colabcnn").write_text("a file")  # No folder can be made there.
    monkeypatch.setattr(data_module.colab, "mounted_drive", lambda: tmp_path / "MyDrive")
    serve(archive)
    assert load_cifar10()[0][0].shape == (50_000, 32, 32, 3)
    assert "CIFAR-10 is not kept on Drive, so the next session downloads it" in capsys.readouterr().out


def test_download_is_kept_on_drive_and_loaded_from_there(archive, home, serve, monkeypatch, tmp_path):
    drive = tmp_path / "MyDrive"
    drive.mkdir()
    monkeypatch.setattr(data_module.colab, "mounted_drive", lambda: drive)
    serve(archive)
    load_cifar10()
    assert files_in(drive) == [f"colabcnn/{data_module.ARCHIVE_NAME}"]
    shutil.rmtree(home)
    monkeypatch.setattr(data_module, "ARCHIVE_URL", "http://127.0.0.1:9/nothing")
    load_cifar10()


@pytest.mark.fuse
def test_drive_that_hangs_does_not_stop_the_download(archive, home, serve, monkeypatch, mount, capsys):
    copy = mount.path / "colabcnn" / data_module.ARCHIVE_NAME
    copy.parent.mkdir()
    copy.write_bytes(archive)
    mount.faults(hang=["read"])
    monkeypatch.setattr(data_module, "DRIVE_SECONDS", 2)
    monkeypatch.setattr(data_module.colab, "mounted_drive", lambda: mount.path)
    serve(archive)
    assert load_cifar10()[0][0].shape == (50_000, 32, 32, 3)
    assert f"cannot be read, so CIFAR-10 is downloaded: {copy} took more than 2 s." in capsys.readouterr().out


def test_session_that_is_killed_keeps_no_part_of_the_archive_on_drive(archive, home, serve, monkeypatch, tmp_path):
    popen = data_module.subprocess.Popen
    communicate = popen.communicate

    def killed(process, content, timeout):
        if not content:
            return communicate(process, content, timeout=timeout)
        process.stdin.write(content[:100])
        process.stdin.close()  # As the end of this process does.
        process.wait()
        raise KeyboardInterrupt

    copy = tmp_path / "MyDrive" / "colabcnn" / data_module.ARCHIVE_NAME
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"not the archive")
    monkeypatch.setattr(data_module.colab, "mounted_drive", lambda: tmp_path / "MyDrive")
    monkeypatch.setattr(popen, "communicate", killed)
    serve(archive)
    with pytest.raises(KeyboardInterrupt):
        load_cifar10()
    assert files_in(tmp_path / "MyDrive") == [f"colabcnn/{data_module.ARCHIVE_NAME}"]
    assert copy.read_bytes() == b"not the archive"


@pytest.mark.versions
def test_error_without_a_network_names_the_fix(home, monkeypatch):
    monkeypatch.setattr(data_module, "ARCHIVE_URL", "http://127.0.0.1:9/nothing")
    with pytest.raises(Error, match=r"could not be downloaded.*CIFAR10_DIR"):
        load_cifar10()
    assert files_in(home) == []


@pytest.mark.versions
def test_unofficial_archive_leaves_no_file(home, serve):
    serve(b"an HTML page")
    data_module.ARCHIVE_SHA256 = "0" * 64
    with pytest.raises(Error, match="could not be downloaded"):
        load_cifar10()
    assert files_in(home) == []


def test_full_disk_is_one_error_and_leaves_no_file(home, monkeypatch):
    def full_disk(*arguments, **options):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("keras.utils.get_file", full_disk)
    with pytest.raises(Error, match=r"No space left on device.*360 MB"):
        load_cifar10()
    assert files_in(home) == []


def test_full_disk_while_drive_is_copied_is_not_drives_fault(archive, monkeypatch, tmp_path, mount_tmpfs, capsys):
    drive, disk = tmp_path / "MyDrive", mount_tmpfs("size=1m")
    (drive / "colabcnn").mkdir(parents=True)
    (drive / "colabcnn" / data_module.ARCHIVE_NAME).write_bytes(archive)
    monkeypatch.delenv("CIFAR10_DIR", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(disk))
    monkeypatch.setattr(data_module, "ARCHIVE_SHA256", hashlib.sha256(archive).hexdigest())
    monkeypatch.setattr(data_module.colab, "mounted_drive", lambda: drive)
    with pytest.raises(Error, match=r"No space left on device.*360 MB"):
        load_cifar10()
    assert capsys.readouterr().out == "Looks for CIFAR-10 on Drive.\n"
    assert files_in(disk) == []


def test_damaged_copy_on_drive_is_replaced(archive, home, serve, monkeypatch, tmp_path):
    copy = tmp_path / "MyDrive" / "colabcnn" / data_module.ARCHIVE_NAME
    copy.parent.mkdir(parents=True)
    copy.write_bytes(archive[:1000])
    monkeypatch.setattr(data_module.colab, "mounted_drive", lambda: tmp_path / "MyDrive")
    serve(archive)
    load_cifar10()
    assert copy.read_bytes() == archive


# The split.


def sets(train=200, test=50):
    labels = np.arange(train) % 10
    images = np.arange(train, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), dtype=np.uint8)
    return (images, labels), (images[:test] + 200, labels[:test])


def test_validation_uses_the_test_set_unless_images_are_held_out():
    split = split_data(*sets(), train_size=30, val_size=20)
    assert np.array_equal(split.train_images, sets()[0][0][:30])
    assert np.array_equal(split.val_images, sets()[1][0][:20])


def test_holdout_is_balanced_and_not_trained_on():
    train, test = sets()
    split = split_data(train, test, holdout=50)
    assert np.bincount(split.val_labels).tolist() == [5] * 10
    assert (len(split.train_labels), len(split.val_labels)) == (150, 50)
    held_out = set(split.val_images[:, 0, 0, 0].tolist())
    assert held_out.isdisjoint(split.train_images[:, 0, 0, 0].tolist())
    assert np.array_equal(split_data(train, test, holdout=50).val_images, split.val_images)


@pytest.mark.parametrize("bad", [{"holdout": 15}, {"holdout": 200}, {"train_size": 201}, {"val_size": 51}])
def test_sizes_beyond_the_data_are_refused(bad):
    with pytest.raises(Error, match=next(iter(bad))):
        split_data(*sets(), **bad)


def test_digest_changes_with_one_pixel():
    split = split_data(*sets())
    before = split.digest()
    split.val_images[0, 0, 0, 0] ^= 1
    assert split.digest() != before


def test_second_process_waits_for_the_download_of_the_first(home, monkeypatch):
    fetched = []

    def fetch_and_unpack(archive):
        fetched.append(archive)
        time.sleep(0.5)
        folder = archive.parent / "cifar-10-batches-py-target" / "cifar-10-batches-py"
        folder.mkdir(parents=True)
        for name in FILE_MD5:
            (folder / name).touch()
        return folder

    monkeypatch.setattr(data_module, "_fetch_and_unpack", fetch_and_unpack)
    together = threading.Barrier(3)

    def download(_):
        together.wait(60)
        return data_module._download()

    with ThreadPoolExecutor(3) as threads:
        folders = list(threads.map(download, range(3)))
    assert len(fetched) == len(set(folders)) == 1

"""A run as one file that can be handed on: a zip whose files are stored as they are, with a manifest of their digests.

Nothing in it is compressed: weights are noise to a compressor, the same run gives the same bytes whatever zlib is
there, and no archive can unpack to more than it is. Whoever reads one believes none of what it says of itself.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import struct
import zipfile

from colabcnn.errors import Error
from colabcnn.store.checkpoint_files import is_checkpoint_name

FORMAT = 1
MANIFEST = "manifest.json"
FILES = ("run.json", "history.csv", "curves.png", "model.keras")
CHECKPOINTS = "checkpoints/"
# The final network with a checkpoint makes 60 MB.
MAX_BYTES = 1 << 30
# What is parsed in memory: 700 epochs of history make 80 kB, a hundred starts of a run as much.
_MAX_TEXT_BYTES, _MAX_MANIFEST_BYTES = 4 << 20, 64 << 10
# A zip ends with its directory, some 60 bytes a file, and a record of 22 bytes that tells where that begins.
_MAX_DIRECTORY_BYTES = 4096
_END, _END_BYTES = b"PK\x05\x06", 22
_LOCATOR_64, _LOCATOR_64_BYTES = b"PK\x06\x07", 20
_MODEL_FILES = {"metadata.json", "config.json", "model.weights.h5"}
_BLOCK = 1 << 20
_NO_ZIP = (zipfile.BadZipFile, EOFError, NotImplementedError, OverflowError, RuntimeError, ValueError, struct.error)


def pack(files):
    """Return an archive, an `io.BytesIO`.

    Args:
        files: dict from a name in the archive to the file's bytes; the same files give the same archive.
    """
    digests = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)} for name, content in files.items()
    }
    manifest = json.dumps({"format": FORMAT, "files": dict(sorted(digests.items()))}, indent=1) + "\n"
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_STORED) as archive:
        for name, content in [(MANIFEST, manifest.encode()), *sorted(files.items())]:
            entry = zipfile.ZipInfo(name)  # Dated 1980, so that the bytes tell nothing of when.
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, content)
    return memory


def unpack(file, folder):
    """Write an archive's files into a folder, each checked against the manifest.

    Args:
        file: opened for reading bytes; can be sought in.
        folder: a `pathlib.Path`, empty. After an error it holds files that must not be used.

    Raises:
        Error: it is no archive of a run, is cut or altered, or holds anything but a run's files.
        OSError: the disk's own.
    """
    writer = None
    try:
        for name, block in _verified(file):
            if block is None:
                if writer:
                    _close(writer)
                target = folder / name
                target.parent.mkdir(exist_ok=True)
                writer = open(target, "xb")  # noqa: SIM115 # One file after another.
            else:
                writer.write(block)
    finally:
        if writer:
            _close(writer)


def _close(writer):
    with writer:
        writer.flush()
        os.fsync(writer.fileno())


def _verified(file):
    """Yield `(name, None)` for each file in an archive, and then its bytes as `(name, block)`; the manifest is not."""
    entries = _entries(file, "the archive")
    with _readable("the archive"), zipfile.ZipFile(file) as archive:
        manifest = _read_manifest(archive, entries)
        for name, told in manifest.items():
            yield name, None
            sha256, size = hashlib.sha256(), 0
            with archive.open(entries[name]) as reader:
                while block := reader.read(_BLOCK):
                    size += len(block)
                    sha256.update(block)
                    yield name, block
            if (sha256.hexdigest(), size) != told:
                raise Error(f"the archive is altered: {name} is not what its manifest says.")
            if name == "model.keras":
                with archive.open(entries[name]) as model:
                    _check_model(model)


def _read_manifest(archive, entries):
    """Return a dict from name to `(sha256, size)`, of just the files that are there, each named as a run's."""
    if MANIFEST not in entries:
        raise Error(f"the archive holds no {MANIFEST}; expected one that `python -m colabcnn export` wrote.")
    if entries[MANIFEST].file_size > _MAX_MANIFEST_BYTES:
        raise Error(f"the archive's {MANIFEST} is too long; expected one that `python -m colabcnn export` wrote.")
    try:
        manifest = json.loads(archive.read(entries[MANIFEST]))
        if manifest["format"] != FORMAT:
            raise Error(f"the archive is of format {manifest['format']!r:.20}, expected {FORMAT}; update colabcnn.")
        told = {name: (str(one["sha256"]), int(one["size"])) for name, one in manifest["files"].items()}
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        raise Error(f"the archive's {MANIFEST} cannot be read; it is altered.") from None
    if differing := set(told) ^ (set(entries) - {MANIFEST}):
        raise Error(f"the archive is altered: its manifest and its files differ in {_shown(min(differing))}.")
    for name in told:
        if name not in FILES and not (name.startswith(CHECKPOINTS) and is_checkpoint_name(name[len(CHECKPOINTS) :])):
            raise Error(f"the archive holds {_shown(name)}, which is no file of a run; it was not made by `export`.")
        if name in ("run.json", "history.csv") and told[name][1] > _MAX_TEXT_BYTES:
            raise Error(f"the archive's {name} is too long: {told[name][1]} bytes, expected {_MAX_TEXT_BYTES} at most.")
    if missing := set(FILES) - set(told):
        raise Error(f"the archive holds no {min(missing)}; expected {', '.join(FILES)}.")
    return told


def _check_model(file):
    """Refuse a `model.keras`, a zip itself, that would unpack to more than it is when it is opened."""
    if unknown := set(_entries(file, "the archive's model.keras")) ^ _MODEL_FILES:
        raise Error(f"the archive's model.keras is altered: it differs in {_shown(min(unknown))} from Keras's.")


def _entries(file, told):
    """Return a dict from name to `ZipInfo`, without having read more than a small zip's directory.

    Raises:
        Error: it is no zip, or one with links, names twice, compressed or more files than a run has.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(_BLOCK >> 10)
    if size > MAX_BYTES:
        raise Error(f"{told} has {size:,} bytes; expected {MAX_BYTES:,} at most.")
    file.seek(max(0, size - _END_BYTES - _LOCATOR_64_BYTES))
    end = file.read()
    locator, end = end[:-_END_BYTES], end[-_END_BYTES:]
    if not start.startswith(b"PK\x03\x04"):
        raise Error(f"{told} is no zip, but {_kind(start)}.")
    if not end.startswith(_END) or len(end) < _END_BYTES:
        raise Error(f"{told} is cut: its {size:,} bytes do not end as a zip does. Bring it again.")
    directory_bytes, directory_at = struct.unpack("<LL", end[12:20])
    if directory_bytes > _MAX_DIRECTORY_BYTES or locator.startswith(_LOCATOR_64):
        raise Error(f"{told} holds more files than a run has; it was not made by `export`.")
    if directory_at + directory_bytes + _END_BYTES != size:
        raise Error(f"{told} is cut or altered: its {size:,} bytes are not the number that its directory tells.")
    entries = {}
    with _readable(told), zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.filename in entries:
                raise Error(f"{told} holds {_shown(entry.filename)} twice; it was not made by `export`.")
            if (entry.external_attr >> 16) & 0o170000 not in (0, 0o100000) or entry.is_dir():
                raise Error(f"{told} holds {_shown(entry.filename)}, which is a link or a folder, not a file.")
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits or entry.file_size != entry.compress_size:
                raise Error(f"{told} holds {_shown(entry.filename)} compressed or encrypted; expected it as it is.")
            entries[entry.filename] = entry
    if sum(entry.file_size for entry in entries.values()) > size:
        raise Error(f"{told} says that it unpacks to more than its own {size:,} bytes; it was not made by `export`.")
    return entries


def _kind(start):
    if start.lstrip().startswith(b"<"):
        return "a web page: the link leads to a page about the file, or to a sign-in. Give the link of the file itself"
    return "something else; expected a file that `python -m colabcnn export` wrote" if start else "empty"


def _shown(name):
    """Return a stranger's text so that it can stand in one line of a message."""
    return ascii(name[:80])


@contextlib.contextmanager
def _readable(told):
    """Say in one message that a zip cannot be read; what the disk says passes."""
    try:
        yield
    except _NO_ZIP as error:
        raise Error(f"{told} is cut or altered: {_shown(str(error))}.") from None
    except OSError as error:
        if error.errno != errno.EINVAL:  # A place before the file's beginning or past all ends.
            raise
        raise Error(f"{told} is altered: its directory leads out of it.") from None

"""Download a file from a URL or from Google Drive, through gdown."""

import inspect
import os
import re
import shutil
from typing import IO, Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import url2pathname

from colabcnn.errors import Error
from colabcnn.sharing.checks import MAX_BYTES
from colabcnn.store.files import DISK_ERRORS, expand

_DRIVE_HOSTS = ("drive.google.com", "docs.google.com", "drive.usercontent.google.com")
_DRIVE_ID = re.compile(r"[-\w]{20,100}", re.ASCII)
# Of a Workspace domain or of one of several accounts, too: /a/example.org/file/d/<id>, /u/1/file/d/<id>.
_DRIVE_PATH = re.compile(r"(?:/a/[^/]+)?(?:/u/\d+)?/file/(?:u/\d+/)?d/([-\w]+)", re.ASCII)
TIMEOUT_SECONDS = 60
_SHA256 = re.compile(r"[0-9a-f]{64}")


def source_and_digest(source: str | os.PathLike[str], sha256: str | None = None) -> tuple[str, str | None]:
    """Return `(source, sha256)`: a URL or a file's id on Google Drive, and the given digest or None.

    Args:
        source: a URL, an id on Google Drive or the path of a file, perhaps with `#sha256=<hex>` at its end.
        sha256: hex, or None.

    Raises:
        Error: the source is neither, or a link to a folder on Drive; a digest is not valid, or two of them differ.
    """
    source = os.fspath(source) if isinstance(source, os.PathLike) else source
    if not isinstance(source, str):
        raise Error(f"the source is {source!r}; expected a URL, the id of a file on Google Drive, or a path.")
    is_file = os.path.isfile(os.path.expanduser(source))  # A path may hold a "#".
    source, _, fragment = (source, "", "") if is_file else source.strip().partition("#")
    kind, _, digest_in_link = fragment.partition("=")
    if fragment and kind.lower() != "sha256":
        raise Error(f"the link ends in {'#' + fragment!r}; expected #sha256= and the digest, or nothing.")
    digest_in_link = digest_in_link if fragment else None
    for digest in (sha256, digest_in_link):
        if digest is not None and not (isinstance(digest, str) and _SHA256.fullmatch(digest.strip().lower())):
            raise Error(f"sha256 is {digest!r}; expected 64 hexadecimal digits, as `export` prints them.")
    digests = {digest.strip().lower() for digest in (sha256, digest_in_link) if digest is not None}
    if len(digests) > 1:
        raise Error("the link ends in another SHA-256 than the given one; expected one SHA-256: give the right one.")
    return _source(source), digests.pop() if digests else None


def _source(source):
    """Return the file's id for a link to a file on Drive, the URL of a file here; other sources unchanged."""
    try:
        url = urlsplit(source)
        host = url.hostname
    except ValueError:
        raise Error(f"{source} is not a URL; expected https://... or the id of a file on Google Drive.") from None
    if url.scheme not in ("http", "https") or not host:
        path = expand(url2pathname(url.path) if url.scheme == "file" else source or ".")
        if url.scheme == "file" or os.path.isfile(path):
            return path.absolute().as_uri()
        if _DRIVE_ID.fullmatch(source):
            return source
        raise Error(
            f"{source!r} is neither a URL (https://...), nor a file's id on Google Drive, nor a file here; give one of "
            "these."
        )
    if host not in _DRIVE_HOSTS:
        return source
    path = _DRIVE_PATH.match(url.path)
    drive_id = path[1] if path else (parse_qs(url.query).get("id") or [""])[0]
    if not _DRIVE_ID.fullmatch(drive_id):
        raise Error(f"{source} is not a link to a file on Google Drive; choose Share, Copy link at the file itself.")
    return drive_id


def download(source: str, file: IO[bytes], *, quiet: bool = False) -> None:
    """Download a source into a file, with a progress bar.

    Args:
        source: as `source_and_digest` returns it.
        file: opened for writing bytes.
        quiet: no progress bar.

    Raises:
        Error: the source cannot be downloaded, or is larger than a run.
        OSError: an error of the disk.
    """
    import gdown

    writer = _Writer(file)
    if source.startswith("file:"):
        path = url2pathname(urlsplit(source).path)
        try:
            # A pipe without a writer is empty, and does not block.
            content = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
            os.set_blocking(content.fileno(), True)
        except OSError as error:
            raise Error(f"{path} cannot be read ({error.strerror}); expected a file that `export` wrote.") from None
        with content:
            return shutil.copyfileobj(content, writer)
    options: dict[str, Any] = {"url" if "://" in source else "id": source}
    if "timeout" in inspect.signature(gdown.download).parameters:  # gdown 5 has no timeout: Ctrl-C ends the wait.
        options["timeout"] = TIMEOUT_SECONDS
    try:
        # Without cookies, gdown writes no file into the user's home, and no file there changes the download.
        gdown.download(output=writer, quiet=quiet, use_cookies=False, log_messages={"output": ""}, **options)  # pyright: ignore[reportArgumentType]  # It has the methods that gdown calls.
    except Exception as error:  # From gdown, requests, or their dependencies.
        if writer.error:
            raise writer.error from None
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        raise Error(f"{source} could not be downloaded: {_reason(error)}") from None


def _reason(error):
    """Return an error's message as one sentence, without gdown's own text around it."""
    import requests

    if isinstance(error, requests.Timeout):
        return f"the server did not answer within {TIMEOUT_SECONDS} s. Try again later."
    if isinstance(error, requests.ConnectionError):
        return "the server cannot be reached. Check the link, and the network connection."
    text = " ".join(str(error).split()).removeprefix("Failed to retrieve file url: ")
    text = text.partition(" You may still be able to access the file from the browser:")[0]
    return text[:400].rstrip(".") + "." if text else f"{type(error).__name__}."


class _Writer:
    """The file that gdown writes to; it ends a download that is too large."""

    def __init__(self, file):
        self.flush, self.tell = file.flush, file.tell
        self.error = None
        self._file = file

    def write(self, block):
        try:
            if self.tell() + len(block) > MAX_BYTES:
                raise Error(f"the file is larger than {MAX_BYTES:,} bytes, the most that a run can have.")
            return self._file.write(block)
        except (Error, OSError) as error:
            self.error = error  # gdown may replace it by its own.
            raise

"""A file system that behaves like Google Drive with faults: faulty_drive.py BACKING MOUNT CONTROL.

Files are in BACKING, deleted ones in its .trash. CONTROL is a JSON file that is read before each call; killing this
process gives a real errno 107.
    errors   {"open": [5, 2]}: the next 2 calls of that kind fail with errno 5; -1 for all of them
    hang     ["write", ...]: calls of these kinds return when they are no longer listed
    quota    bytes: the limit of files and trash together; a write beyond it fails with EDQUOT
    listing  "stale": a directory keeps the listing of the first call after this was set
    lose     "epoch-": writes to files with this text in their names succeed but are lost
    rename   "unlink first": the target is removed, then the call fails with errno 5
Beside CONTROL, NAME.written has the number of bytes written to each file, a line when it was closed.
"""

import errno
import json
import os
import sys
import threading
import time
from pathlib import Path

import mfusepy

TRASH = ".trash"


class FaultyDrive(mfusepy.Operations):
    """Pass every call to the backing folder, except for the faults of the control file."""

    use_ns = True

    def __init__(self, backing, control):
        self.backing = backing
        self.control = control
        self.mutex = threading.Lock()
        self.text = None
        self.faults = {}
        self.listings = {}
        self.written = {}
        (backing / TRASH).mkdir(exist_ok=True)

    def under(self, path):
        return str(self.backing) + path

    def apply_faults(self, kind):
        """Act out the faults that the control file has for this kind of call; return all faults."""
        with self.mutex:
            text = self.control.read_text()
            if text != self.text:
                self.text, self.faults, self.listings = text, json.loads(text), {}
            error = self.faults.get("errors", {}).get(kind)
            if error and error[1]:
                error[1] -= 1
                raise mfusepy.FuseOSError(error[0])
        while kind in json.loads(self.control.read_text()).get("hang", []):
            time.sleep(0.05)
        return self.faults

    def getattr(self, path, fh=None):
        self.apply_faults("getattr")
        stat = os.lstat(self.under(path))
        fields = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid")
        times = {f"st_{name}": getattr(stat, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")}
        return {field: getattr(stat, field) for field in fields} | times

    def readdir(self, path, fh):
        names = [name for name in os.listdir(self.under(path)) if name != TRASH]
        if self.apply_faults("readdir").get("listing") == "stale":
            names = self.listings.setdefault(path, names)
        return [".", "..", *names]

    def mkdir(self, path, mode):
        self.apply_faults("mkdir")
        os.mkdir(self.under(path), mode)
        return 0

    def rmdir(self, path):
        os.rmdir(self.under(path))
        return 0

    def create(self, path, mode, fi=None):
        self.apply_faults("create")
        return os.open(self.under(path), os.O_RDWR | os.O_CREAT, mode)

    def open(self, path, flags):
        self.apply_faults("open")
        return os.open(self.under(path), flags & ~os.O_CREAT)

    def read(self, path, size, offset, fh):
        self.apply_faults("read")
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        quota = self.apply_faults("write").get("quota")
        if quota is not None and self.used() + len(data) > quota:
            raise mfusepy.FuseOSError(errno.EDQUOT)
        lost = self.faults.get("lose", "?") in os.path.basename(path)
        size = len(data) if lost else os.pwrite(fh, data, offset)
        self.written[fh] = self.written.get(fh, 0) + size
        return size

    def used(self):
        return sum(path.stat().st_size for path in self.backing.rglob("*") if path.is_file())

    def truncate(self, path, length, fh=None):
        self.apply_faults("truncate")
        os.truncate(self.under(path) if fh is None else fh, length)
        return 0

    def flush(self, path, fh):
        return 0

    def fsync(self, path, datasync, fh):
        self.apply_faults("fsync")
        return 0

    def release(self, path, fh):
        if size := self.written.pop(fh, 0):
            with open(self.control.with_suffix(".written"), "a") as file:
                print(size, file=file)
        os.close(fh)
        return 0

    def rename(self, old, new):
        if self.apply_faults("rename").get("rename") == "unlink first":
            if os.path.exists(self.under(new)):
                self.discard(new)
            raise mfusepy.FuseOSError(errno.EIO)
        if os.path.isfile(self.under(new)):
            self.discard(new)
        os.rename(self.under(old), self.under(new))
        return 0

    def unlink(self, path):
        self.apply_faults("unlink")
        self.discard(path)
        return 0

    def discard(self, path):
        """Move a file to the trash, as Drive does."""
        name = f"{time.monotonic_ns()}-{os.path.basename(path)}"
        os.rename(self.under(path), self.backing / TRASH / name)

    def utimens(self, path, times=None):
        os.utime(self.under(path), ns=times)
        return 0

    def chmod(self, path, mode):
        os.chmod(self.under(path), mode)
        return 0


if __name__ == "__main__":
    backing, mount, control = (Path(argument).absolute() for argument in sys.argv[1:])
    options = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0, "direct_io": True}
    mfusepy.FUSE(FaultyDrive(backing, control), str(mount), foreground=True, allow_other=False, **options)

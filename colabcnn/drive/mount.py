"""Whether Drive is mounted below a run's folder there, and what this machine has noted about that folder."""

import errno
import json
import os
from pathlib import Path
from typing import Any

from colabcnn.colab import DRIVE_MOUNT
from colabcnn.errors import MALFORMED, Error
from colabcnn.store.files import write_atomically


class Mount:
    """The mount point below which a run's folder on Drive is.

    It is `/content/drive` for a folder below that one, otherwise the mount point on which the run first used the
    folder: `drive.json` in the run's local folder records it.

    Args:
        local: the run's folder on this machine.
        drive: its folder on Drive, without symbolic links.
    """

    def __init__(self, local: Path, drive: Path):
        self._file = local / "drive.json"
        self._drive = drive

    def make_folder(self) -> None:
        """Make the folder on Drive, also again if it is in the trash.

        Raises:
            Error: it is the run's own folder.
            OSError: Drive is not mounted. A local folder would prevent the next mount, and its files would be lost.
        """
        if str(self._drive) == os.path.realpath(self._file.parent):
            raise Error(f"{self._drive} is the run's own folder, perhaps by a link; expected another one for Drive")
        noted = self.read_note().get("mount")
        mount = DRIVE_MOUNT if DRIVE_MOUNT in self._drive.parents else noted
        if mount is None:
            mount = next(path for path in (self._drive, *self._drive.parents) if os.path.ismount(path))
        elif not os.path.ismount(mount):
            # A copied folder has the other machine's note.
            advice = "" if mount == DRIVE_MOUNT else f" (delete {self._file} if Drive is mounted elsewhere now)"
            raise OSError(errno.ENOTCONN, f"{os.strerror(errno.ENOTCONN)}{advice}", str(mount))
        os.makedirs(self._drive / "checkpoints", exist_ok=True)
        if noted is None:
            self.note(drive=str(self._drive), mount=str(mount))

    def read_note(self) -> dict[str, Any]:
        """Return what this machine has noted: `drive`, `mount`, and `session`, its last one's identity; or {}."""
        try:
            note = json.loads(self._file.read_text(encoding="utf-8"))
            return note if note["drive"] == str(self._drive) and isinstance(note["mount"], str) else {}
        except (OSError, *MALFORMED):
            return {}

    def note(self, **values: str) -> None:
        """Note more.

        Raises:
            OSError: an error of the local disk.
        """
        write_atomically(self._file, json.dumps(self.read_note() | values))

"""The Colab runtime: its Drive and its age."""

import os
from pathlib import Path

DRIVE_MOUNT = Path("/content/drive")


def in_colab() -> bool:
    """Return whether this is a Colab runtime."""
    return "COLAB_RELEASE_TAG" in os.environ


def mounted_drive() -> Path | None:
    """Return the user's Drive folder, or None if Drive is not mounted.

    A plain folder at its path is not Drive: a lost mount leaves one.
    """
    # Python 3.11's `Path.is_mount` and `Path.is_dir` raise at a mount that is dead.
    return DRIVE_MOUNT / "MyDrive" if os.path.ismount(DRIVE_MOUNT) else None


def lost_with_session(folder: Path) -> str:
    """Return a warning if a folder is on the Colab runtime's own disk, or ""; below `DRIVE_MOUNT` it is never."""
    # Drive is not looked up: a call to it may hang.
    if not in_colab() or DRIVE_MOUNT in Path(os.path.abspath(folder)).parents:
        return ""
    real = Path(os.path.realpath(folder))
    if DRIVE_MOUNT in real.parents or any(map(os.path.ismount, (real, *real.parents[:-1]))):
        return ""
    return (
        f"{folder} IS NOT ON GOOGLE DRIVE: what is kept there is lost when this session ends. Choose a folder below "
        f"{DRIVE_MOUNT}/MyDrive."
    )


def seconds_since_start() -> float:
    """Return the age of this Colab runtime, that of its first process; 0 elsewhere."""
    if not in_colab():
        return 0.0
    try:
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        started = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19])  # proc(5): field 22, in ticks.
        return max(0.0, uptime - started / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return 0.0

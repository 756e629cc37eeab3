"""What only a Colab runtime has."""

import os
from pathlib import Path

DRIVE_MOUNT = Path("/content/drive")


def mounted_drive():
    """Return the user's Drive folder, or None where Drive is not mounted.

    A plain folder at that place is not Drive: it is what a lost mount leaves behind.
    """
    return DRIVE_MOUNT / "MyDrive" if DRIVE_MOUNT.is_mount() else None


def seconds_since_start():
    """Return how long this Colab runtime has been there, by the age of its first process; 0 elsewhere."""
    if "COLAB_RELEASE_TAG" not in os.environ:
        return 0.0
    try:
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        started = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19])  # proc(5): field 22, in ticks.
        return max(0.0, uptime - started / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return 0.0

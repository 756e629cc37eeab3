"""What only a Colab runtime has."""

from pathlib import Path

DRIVE_MOUNT = Path("/content/drive")


def mounted_drive():
    """Return the user's Drive folder, or None where Drive is not mounted.

    A plain folder at that place is not Drive: it is what a lost mount leaves behind.
    """
    return DRIVE_MOUNT / "MyDrive" if DRIVE_MOUNT.is_mount() else None

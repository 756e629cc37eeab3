"""What a notebook's setup cell calls, in Colab and elsewhere."""

import errno
import os
import shutil
from pathlib import Path

from colabcnn import colab

# Three checkpoints of the final network and one on its way, 47.6 MB each, and `model.keras`.
RUN_GIGABYTES = 0.2
# CIFAR-10's archive, kept there once.
DATA_GIGABYTES = 0.17


def welcome(tag: str | None = None) -> None:
    """Say what this runtime is: library, versions, device, hours, Drive and its room; the setup cell's last line.

    Args:
        tag: the tag that the notebook was made for, such as "v0.1.0"; another version of the library is reported.
    """
    # TensorFlow's notices about the processor and CUDA would stand before everything else.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from colabcnn.network import devices

    versions = devices.versions()
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    if tag and tag != f"v{versions['colabcnn']}":
        print(f"This notebook was made for colabcnn {tag}; its runs are resumed best with that version: install it.")
    print(f"Device: {devices.device_name()}")
    if devices.is_cpu():
        print("THERE IS NO GPU. In Colab: Runtime, Change runtime type, T4 GPU. A full run on a CPU takes days.")
    if colab.in_colab():
        hours = colab.seconds_since_start() / 3600
        print(
            f"This runtime is {hours:.1f} hours old. Colab promises no number of hours, twelve at most, and ends idle "
            "runtimes sooner: keep this tab open. When it has ended, open the notebook again and choose Run all: the "
            "same run continues."
        )
    print(_drive_in_words())


def folder_on_drive(folder: str | Path | None, name: str, seed: int) -> Path | None:
    """Return where a run is delivered, or None, said loudly, where Drive is not there.

    Args:
        folder: of all runs, such as "/content/drive/MyDrive/colabcnn"; one that is not on Drive is taken as it is.
            None or "" delivers nothing.
        name: the experiment's.
        seed: the run's.

    Returns:
        `<folder>/<name>/seed-<seed>`, a `pathlib.Path`, or None.
    """
    if not folder:
        return None
    if colab.DRIVE_MOUNT in Path(folder).parents and not _is_or_was_mounted():
        print(_drive_in_words())
        return None
    return Path(folder) / name / f"seed-{seed}"


def _is_or_was_mounted():
    """Return whether Drive is mounted, or was and its mount is dead: then a run says itself what to do."""
    try:
        os.lstat(colab.DRIVE_MOUNT)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return colab.mounted_drive() is not None


def _drive_in_words():
    drive = colab.mounted_drive()
    if drive is not None:
        needed = f"a run keeps {RUN_GIGABYTES} GB there, CIFAR-10 {DATA_GIGABYTES} GB"
        return f"Drive is mounted, {shutil.disk_usage(drive).free / 1e9:.1f} GB are free there; {needed}."
    if not colab.in_colab():
        return "Google Drive is not mounted: runs stay in the folder runs, and in DRIVE_FOLDER if that is elsewhere."
    left = [path.name for path in colab.DRIVE_MOUNT.iterdir()] if os.path.isdir(colab.DRIVE_MOUNT) else []
    why = f" {colab.DRIVE_MOUNT} holds {', '.join(left[:3])}, which bars the mount: move it away." if left else ""
    return (
        f"GOOGLE DRIVE IS NOT MOUNTED.{why} What is trained now is lost when this session ends, and an earlier run on "
        "Drive is not seen. Run the setup cell again and allow it; without it everything else works."
    )

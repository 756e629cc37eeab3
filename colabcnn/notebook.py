"""The functions that a notebook's setup cell calls, in Colab and elsewhere."""

import ast
import errno
import os
import re
import shutil
import sys
from pathlib import Path
from traceback import walk_tb

from colabcnn import colab, output, version
from colabcnn.errors import Error
from colabcnn.store.files import expand

# Three checkpoints of the final network and one that is being written, 47.6 MB each, and `model.keras`.
RUN_GIGABYTES = 0.2
# CIFAR-10's archive, kept once for all runs.
DATA_GIGABYTES = 0.17


# By an error's kind, with the names of the notebooks' form fields and calls.
ADVICE = {
    "no_data": "Or set DATA to that folder.",
    "another_run": "Or set another SEED, or give a changed variant another name. Or add start_over=True to the call "
    "once: it moves the former run aside, here and on Drive.",
    "shared_without_checkpoint": "It is written by colabcnn.export(..., checkpoint=True).",
    "too_long": "In Colab choose a GPU: Runtime, Change runtime type. Without one, {smaller}open 08_in_minutes, which "
    "needs only 10 epochs. ALLOW_LONG = True trains all of them.",
    "no_drive": "Run the setup cell again and allow the access, then choose Run all. To train without Drive, leave "
    "DRIVE_FOLDER empty: then the run is lost when this session ends.",
}


def welcome(code: str = "") -> None:
    """Print the runtime's versions, commit, device, age and free room on Drive; the setup cell's last line.

    Args:
        code: the commit that the notebook's field CODE names; if another one is imported, that is reported.
    """
    _register_errors()
    output.drop_notices()
    from colabcnn.network import devices

    output.write(", ".join(f"{name} {version}" for name, version in devices.versions().items()))
    commit = version.commit()
    output.write(f"Commit of colabcnn: {commit or 'not known'}")
    if re.fullmatch("[0-9a-f]{7,40}", code) and not (commit or "").startswith(code):
        output.write(f"CODE IS NOT IN USE: {code}. Restart the session (Runtime menu), then choose Run all.")
    output.write(f"Device: {devices.device_name()}")
    if devices.is_cpu():
        kind = "with" if devices.cpu_has_bfloat16() else "without"
        output.write(
            "THERE IS NO GPU. In Colab: Runtime, Change runtime type, T4 GPU. This is a processor "
            f"{kind} bfloat16 instructions. A full run of the article's 700 epochs takes ten hours to several days on "
            "a processor. 08_in_minutes took 15 minutes on the fastest two cores with these instructions that were "
            "measured; without them it takes hours."
        )
    if colab.in_colab():
        hours = colab.seconds_since_start() / 3600
        output.write(
            f"This runtime is {hours:.1f} hours old. Colab promises no number of hours, twelve at most, and ends idle "
            "runtimes sooner: keep this tab open. When it has ended, open the notebook again, set the same parameters "
            "and choose Run all: the same run continues."
        )
    output.write(_drive_in_words())


def folder_on_drive(
    folder: str | Path | None, name: str | None = None, seed: int = 0, *, required: bool = False
) -> Path | None:
    """Return the folder that a run is delivered to; without Drive print a warning and return None.

    In Colab a folder that is not on Drive is lost when the session ends, so that is a warning, too.

    Args:
        folder: of all runs, such as "/content/drive/MyDrive/colabcnn"; it need not be on Drive. None or "" delivers
            nothing.
        name: the experiment's; None for the folder of all runs, which `sweep` takes.
        seed: the run's.
        required: the folder is for a run that starts now. In Colab, raise an error if it is on Drive and Drive is not
            mounted, and print a warning if there is none.

    Returns:
        `<folder>/<name>/seed-<seed>`, or with no name `<folder>`, a `pathlib.Path`; or None.

    Raises:
        Error: white space at the ends of `folder`; as `required` says: an earlier session's run may be there, and a new
            one would be lost with the session.
    """
    if not folder:
        if required and colab.in_colab():
            output.write("DRIVE_FOLDER IS EMPTY: the run is lost when this session ends.")
        return None
    if str(folder) != str(folder).strip():
        raise Error(
            f"the folder is {str(folder)!r}; expected no space at its ends: on Drive it would look like another."
        )
    folder = expand(folder)
    path = folder if name is None else folder / name / f"seed-{seed}"
    if colab.DRIVE_MOUNT in folder.absolute().parents and not _is_or_was_mounted():
        if required and colab.in_colab():
            raise Error(
                f"Google Drive is not mounted, and this run may be on it, in {path}; nothing was started."
                + _blocked_in_words(),
                "no_drive",
            )
        output.write(_drive_in_words())
        return None
    if warning := colab.lost_with_session(folder.absolute()):
        output.write(warning)
    return path


def _is_or_was_mounted():
    """Return whether Drive is mounted, or its mount is dead: for a dead mount a run raises an error with advice."""
    try:
        os.lstat(colab.DRIVE_MOUNT)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return colab.mounted_drive() is not None


def _drive_in_words():
    drive = colab.mounted_drive()
    if drive is not None:
        needed = f"a run keeps {RUN_GIGABYTES} GB there, CIFAR-10 {DATA_GIGABYTES} GB"
        free = shutil.disk_usage(drive).free / 1e9
        if free < RUN_GIGABYTES + DATA_GIGABYTES:
            return f"DRIVE IS NEARLY FULL: {free:.2f} GB are free, and {needed}. Make room, and empty Drive's trash."
        return f"Drive is mounted, {free:.1f} GB are free there; {needed}."
    if not colab.in_colab():
        return "Google Drive is not mounted: runs stay in the folder runs, and in DRIVE_FOLDER if that is elsewhere."
    return (
        f"GOOGLE DRIVE IS NOT MOUNTED.{_blocked_in_words()} Run the setup cell again and allow the access. Without it "
        "no run starts, unless DRIVE_FOLDER is empty: then it is lost when this session ends."
    )


def _blocked_in_words():
    """Return what blocks a mount of Drive, as a sentence after a space, or ""."""
    left = [path.name for path in colab.DRIVE_MOUNT.iterdir()] if os.path.isdir(colab.DRIVE_MOUNT) else []
    return f" {colab.DRIVE_MOUNT} holds {', '.join(left[:3])}, which blocks the mount: move it away." if left else ""


def _register_errors():
    """Let the notebook show an `Error` as its message and the advice for notebooks, and continue with the next cell.

    Without that, Run all would end at a refused run, and the cells below would stay empty. It does end if an
    assignment failed: the cells below need its value, or would use a former one.
    """
    if shell := output.running_shell():
        shell.set_custom_exc((Error,), _show_error)
        shell.events.register("post_run_cell", _continue_after_error)


def _show_error(shell, kind, error, traceback, tb_offset=None):
    # Not as an error output: Colab and Papermill end Run all there.
    output.write(f"colabcnn.Error: {error}\n{advice(error)}".rstrip(), stream=sys.stderr)


def advice(error: Error) -> str:
    """Return the advice for an error, with the names of the notebooks' form fields; "" if there is none."""
    text = ADVICE.get(error.kind, "")
    if error.kind != "too_long":
        return text
    # Other images are another run.
    of_its_own = {"train_size": " with another SEED, such as 99"}
    smaller = [f"{name.upper()} = {value}{of_its_own.get(name, '')}" for name, value in error.facts.items()]
    return text.format(smaller=f"set {' or '.join(smaller)} in the form, or " if smaller else "")


def _continue_after_error(result):
    error = getattr(result, "error_in_exec", None)
    if isinstance(error, Error) and not _was_to_assign(result.info.raw_cell, error):
        result.error_in_exec = None


def _was_to_assign(cell, error):
    """Return whether the cell's statement that raised the error is an assignment."""
    shell = output.running_shell()
    lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_globals is shell.user_global_ns]
    # The innermost statement comes last.
    raised = [
        node
        for node in ast.walk(ast.parse(shell.transform_cell(cell)))
        if isinstance(node, ast.stmt) and lines and node.lineno <= lines[0] <= (node.end_lineno or 0)
    ]
    return bool(raised) and isinstance(raised[-1], (ast.Assign, ast.AnnAssign, ast.AugAssign))

"""A `Recorder` as `train` makes it, that says nothing."""

from colabcnn.history import empty_history
from colabcnn.interruption import Interruption
from colabcnn.progress import ProgressLine
from colabcnn.recorder import Recorder
from colabcnn.run_folder import RunFolder


def quiet_recorder(folder, experiment, *, checkpoint_minutes):
    """Return the `Recorder` of a run that begins, without Drive and without a limit of hours.

    Args:
        folder: a `Path`, the run's folder.
        experiment: `Experiment`.
        checkpoint_minutes: at least so long between two checkpoints.
    """
    return Recorder(
        RunFolder(folder),
        {"experiment": experiment.settings()},
        empty_history(),
        None,
        [],
        checkpoint_minutes=checkpoint_minutes,
        deadline=None,
        delivery=None,
        interruption=Interruption(),
        progress=ProgressLine(quiet=True),
    )

"""An experiment of one's own as a file, so that the command line and other machines can train it."""

import json
from pathlib import Path

from colabcnn.errors import Error
from colabcnn.experiments.catalog import find_experiment
from colabcnn.experiments.experiment import Experiment
from colabcnn.experiments.settings import without_repetition
from colabcnn.store.files import expand, write_atomically

ENDING = ".json"


def write_experiment(path: Path, experiment: Experiment) -> None:
    """Write the settings of an experiment as JSON; the folder is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(experiment.settings(), indent=1) + "\n")


def read_experiment(experiment: Experiment | str) -> Experiment:
    """Return the experiment of a name, of a `.json` file with its settings, or the one given.

    Raises:
        Error: an unknown name; a file that cannot be read, or is not an experiment.
    """
    if not isinstance(experiment, str) or not experiment.endswith(ENDING):
        return find_experiment(experiment)
    try:
        text = expand(experiment).read_text(encoding="utf-8-sig")  # Windows' editors write a byte order mark.
        settings = json.loads(text, object_pairs_hook=without_repetition)
    except (Error, OSError, RecursionError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Error(
            f"{experiment} cannot be read ({reason}); expected the settings of an experiment as JSON."
        ) from None
    try:
        return find_experiment(Experiment.from_settings(settings))
    except Error as error:
        raise Error(f"{experiment}: {error}") from None

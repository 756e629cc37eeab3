"""Which run is which: what a run that is gone on with must share with its beginning."""

import hashlib
import json

from colabcnn.errors import Error
from colabcnn.experiments.experiment import LATER_DEFAULTS

# The number of epochs is not among it: a run can be extended, unless its rate falls to the last of them; then it is one
# of the experiment's settings.
FINGERPRINT = ("experiment", "seed", "data", "data_sha256", "train_size", "val_size", "holdout", "precision")


def fingerprint(run):
    """Return a digest, in hex, of what a resumed run must share with its beginning.

    Args:
        run: what `run.json` holds.
    """
    return hashlib.sha256(json.dumps([run[field] for field in FINGERPRINT], sort_keys=True).encode()).hexdigest()


def differing_field(saved_run, given, fields=FINGERPRINT):
    """Return `(name, saved value, given value)` of the first field in which two runs differ, or None.

    Args:
        saved_run: what the run was begun with.
        given: dict of the same fields, as asked for now; an experiment's settings without the `epochs` that its
            schedule depends on stand for any number.
        fields: which to compare.
    """
    for field in fields:
        saved_value, given_value = saved_run[field], given[field]
        if field != "experiment":
            if saved_value != given_value:
                return field, saved_value, given_value
            continue
        saved_name = saved_value.get("name") if isinstance(saved_value, dict) else saved_value
        if saved_name != given_value["name"]:
            return field, saved_name, given_value["name"]
        saved_value, given_value = {**LATER_DEFAULTS, **saved_value}, {**LATER_DEFAULTS, **given_value}
        for key in {**saved_value, **given_value}:
            # The number of epochs is there where the rate falls, and says nothing if it does on one side only.
            if key != "epochs" and saved_value.get(key) != given_value.get(key):
                return f"experiment.{key}", saved_value.get(key), given_value.get(key)
        epochs = saved_value.get("epochs"), given_value.get("epochs")
        if None not in epochs and epochs[0] != epochs[1]:
            return "experiment.epochs", *epochs
    return None


def check_same_run(path, saved_run, given, fields=FINGERPRINT):
    """Refuse to go on with a run that was begun as another one.

    Args:
        path: the folder that the run is in, for the message.
        saved_run, given, fields: as for `differing_field`.

    Raises:
        Error: names the first field that differs, the saved value and the given one.
    """
    if differs := differing_field(saved_run, given, fields):
        name, saved_value, given_value = differs
        why = ", over which its learning rate falls" if name == "experiment.epochs" else ""
        raise Error(
            f"{path} holds another run: its {name} is {saved_value!r}{why}, now given {given_value!r}; "
            "give what it was begun with, or another folder."
        )

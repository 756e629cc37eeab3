"""A run's weights as a plain model, and the one measurement on the test set."""

import io
import json
import tempfile
import zipfile
from pathlib import Path

import h5py

from colabcnn.data.split import data_name
from colabcnn.errors import Error
from colabcnn.experiments.experiment import Experiment
from colabcnn.network.model import build_model
from colabcnn.store.files import write_atomically
from colabcnn.store.history import best_epoch, read_history
from colabcnn.store.run_folder import open_run


def load_model(run_dir):
    """Return the network with the weights of the run's best epoch.

    Args:
        run_dir: the run's folder.

    Returns:
        A `keras.Model` of stock layers in float32, from `(batch, 32, 32, 3) float32` in [0, 1] to `(batch, 10)`
        probabilities; `model.save("mine.keras")` writes a file that plain Keras opens.

    Raises:
        Error: there is no run in that folder, or neither a checkpoint nor a `model.keras` of it.
    """
    return open_best(run_dir)[3]


def open_best(run_dir):
    """Return `(RunFolder, run, epoch, network)`: what `run.json` describes, and its best epoch's network.

    The newest checkpoint has its weights; of a run that was handed on without one, `model.keras`. That may be a
    stranger's: nothing that it describes is built, its weights are read into this library's own network.

    Raises:
        Error: there is no run in that folder, or nothing of these can be used.
    """
    folder, saved = open_run(run_dir)
    if saved.checkpoint or not folder.model_keras.exists():
        checkpoint = _usable(folder, saved)
        run, history = checkpoint.metadata["run"], checkpoint.metadata["history"]
        return folder, run, best_epoch(history), network_with_weights(run, checkpoint.arrays["best"])
    epoch = best_epoch(read_history(folder.history_csv))
    try:
        with zipfile.ZipFile(folder.model_keras) as archive, archive.open("model.weights.h5") as weights:
            _check_weights(weights, folder.model_keras.stat().st_size)
        network = build_model(Experiment.from_settings(saved.run["experiment"]), seed=saved.run["seed"])
        network.load_weights(folder.model_keras)
        return folder, saved.run, epoch, network
    except Exception as error:  # Of a file that is damaged or hostile these raise nearly anything.
        reason = " ".join(str(error).split())[:300]
        raise Error(f"{folder.model_keras} is not this run's network ({reason}); bring the run again.") from None


def _check_weights(file, most_bytes):
    """Refuse an HDF5 file with arrays that lie elsewhere, or that are larger than the file when they are read."""
    left = {"bytes": most_bytes, "items": 10_000}

    def check(group):
        for name in group:
            left["items"] -= 1
            if left["items"] < 0 or not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise Error("it holds links, or more than a network does")
            item = group[name]
            if isinstance(item, h5py.Group):
                check(item)
                continue
            left["bytes"] -= item.nbytes
            if left["bytes"] < 0 or item.external or item.is_virtual or item.chunks:
                raise Error("it holds arrays that do not lie in it as they are")

    with h5py.File(file, "r") as opened:
        check(opened)


def model_bytes(run, weights):
    """Return the `.keras` file of a run's network with these weights; the same weights give the same bytes.

    Keras dates the file and numbers shared objects by their place in memory; neither is needed to open it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        network_with_weights(run, weights).save(path)
        memory = io.BytesIO()
        with zipfile.ZipFile(path) as saved, zipfile.ZipFile(memory, "w", zipfile.ZIP_STORED) as dateless:
            for name in sorted(saved.namelist()):
                content = saved.read(name)
                if name.endswith(".json"):
                    content = json.dumps(_without_chance(json.loads(content))).encode()
                dateless.writestr(zipfile.ZipInfo(name), content)
    return memory.getvalue()


def _without_chance(value):
    if isinstance(value, list):
        return [_without_chance(member) for member in value]
    if isinstance(value, dict):
        kept = {key: member for key, member in value.items() if key not in ("shared_object_id", "date_saved")}
        return {key: _without_chance(member) for key, member in kept.items()}
    return value


def write_model(folder, checkpoint):
    """Write `model.keras`, the best epoch's weights, if there is none or the checkpoints are newer.

    Args:
        folder: `RunFolder`.
        checkpoint: its newest `Checkpoint`.
    """
    path = folder.model_keras
    if path.exists() and path.stat().st_mtime >= folder.checkpoints.stat().st_mtime:
        return
    write_atomically(path, model_bytes(checkpoint.metadata["run"], checkpoint.arrays["best"]))


def network_with_weights(run, weights, precision="float32"):
    """Return the network of a run (as `run.json` describes it) with the given weights."""
    network = build_model(Experiment.from_settings(run["experiment"]), seed=run["seed"], precision=precision)
    network.set_weights(weights)
    return network


def open_checkpoint(run_dir):
    """Return `(RunFolder, Checkpoint)` of an existing run, the newest checkpoint that verifies.

    Raises:
        Error: there is no run in that folder, or no checkpoint of it.
    """
    folder, saved = open_run(run_dir)
    return folder, _usable(folder, saved)


def _usable(folder, saved):
    """Return a run's newest checkpoint, or say why there is none."""
    if saved.checkpoint is None:
        if folder.model_keras.exists() and not saved.passed_over:
            raise Error(f"{folder.path} was handed on without its checkpoint; ask for one exported with --checkpoint.")
        detail = " ".join(saved.passed_over.values()) or "none was taken yet."
        raise Error(f"{folder.path} has no checkpoint that can be used: {detail} Train the run on, and try again.")
    return saved.checkpoint


def check_data_name(folder, run, data):
    """Refuse data of another name than the run's (as `run.json` describes it); None is the run's own.

    Raises:
        Error: it is another one.
    """
    if data is not None and data_name(data) != run["data"]:
        raise Error(f"{folder.path} was trained on {run['data']}, not on {data!r}; leave the data out.")

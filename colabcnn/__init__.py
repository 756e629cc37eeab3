"""A plain 10-layer CNN on CIFAR-10, trained in runs that can be stopped and resumed as the same run.

    import colabcnn
    result = colabcnn.run(colabcnn.ABLATIONS["06_final"], "runs/06_final/seed-0")

Importing the package imports neither Keras nor TensorFlow: a name's module is loaded when the name is first used.
"""

import importlib
import importlib.util
import os
import sys

from colabcnn import onednn
from colabcnn.errors import Error

_MODULE_OF = {
    "__version__": "version",
    "ABLATIONS": "experiments.catalog",
    "RECIPES": "experiments.catalog",
    "find_experiment": "experiments.catalog",
    "Adam": "experiments.ingredients",
    "Augmentation": "experiments.ingredients",
    "Constant": "experiments.ingredients",
    "Muon": "experiments.ingredients",
    "RiseAndFall": "experiments.ingredients",
    "Experiment": "experiments.experiment",
    "Reported": "experiments.experiment",
    "CLASS_NAMES": "data.cifar10",
    "load_cifar10": "data.cifar10",
    "load_data": "data.split",
    "load_synthetic": "data.synthetic",
    "EpochPlan": "data.epoch_plan",
    "plan_epoch": "data.epoch_plan",
    "augment": "network.augmentation",
    "build_model": "network.model",
    "CheckpointToDrive": "training.checkpoint_to_drive",
    "Result": "training.run",
    "run": "training.run",
    "evaluate": "inspection.evaluation",
    "load_model": "inspection.weights",
    "status": "store.run_folder",
    "plot_curves": "viewing.curves",
    "plot_images": "inspection.images",
    "plot_augmentation": "inspection.images",
    "find_runs": "store.run_list",
    "plot_luck": "viewing.luck",
    "plot_shipped": "viewing.table",
    "shipped_results": "store.run_list",
    "runs_on_drive": "viewing.runs_on_drive",
    "summarize": "viewing.table",
    "welcome": "notebook",
    "folder_on_drive": "notebook",
    "explore": "viewing.explorer",
    "export_html": "viewing.page",
    "plot_confusion": "inspection.predictions",
    "plot_mistakes": "inspection.predictions",
    "predict": "inspection.predictions",
    "measure": "measuring.measurement",
    "offer_measurement": "measuring.measurement",
    "sweep": "sweeps.sweep",
    "export": "sharing.share",
    "fetch": "sharing.share",
    "fetch_links": "sharing.share",
}

__all__ = ["Error", *(name for name in _MODULE_OF if not name.startswith("_"))]  # pyright: ignore[reportUnsupportedDunderAll]  # `__init__.pyi` lists them.

# Keras fails to import where its default, TensorFlow, is missing (Colab's TPU runtime); JAX is there.
if "keras" not in sys.modules and "KERAS_BACKEND" not in os.environ and importlib.util.find_spec("tensorflow") is None:
    os.environ["KERAS_BACKEND"] = "jax"
onednn.switch_on()


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'colabcnn' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"colabcnn.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_MODULE_OF})

"""A plain 10-layer CNN on CIFAR-10, trained in runs that stop and go on as the same run.

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
    "__version__": "home",
    "ABLATIONS": "ablations",
    "RECIPES": "recipes",
    "find_experiment": "recipes",
    "Augmentation": "experiments",
    "Experiment": "experiments",
    "Reported": "experiments",
    "CLASS_NAMES": "data",
    "load_cifar10": "data",
    "load_data": "data",
    "load_synthetic": "synthetic",
    "EpochPlan": "epoch_plan",
    "plan_epoch": "epoch_plan",
    "augment": "augmentation",
    "build_model": "model",
    "CheckpointToDrive": "checkpoint_to_drive",
    "Result": "training",
    "run": "training",
    "evaluate": "evaluation",
    "load_model": "evaluation",
    "status": "run_folder",
    "plot_curves": "plots",
    "plot_images": "gallery",
    "plot_augmentation": "gallery",
    "find_runs": "summary",
    "plot_shipped": "summary",
    "shipped_results": "summary",
    "summarize": "summary",
    "welcome": "colab",
    "folder_on_drive": "colab",
    "explore": "explorer",
    "interactive_figure": "interactive",
    "export_html": "interactive",
    "plot_confusion": "predictions",
    "plot_mistakes": "predictions",
    "predict": "predictions",
    "measure": "measuring",
    "offer_measurement": "measuring",
    "export": "sharing",
    "fetch": "sharing",
}

__all__ = ["Error", *(name for name in _MODULE_OF if not name.startswith("_"))]

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

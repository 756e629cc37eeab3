"""A plain 10-layer CNN on CIFAR-10, trained in runs that can be stopped and resumed as the same run.

    import colabcnn
    result = colabcnn.run(colabcnn.ABLATIONS["06_final"], "runs/06_final/seed-0")

Importing the package imports neither Keras nor TensorFlow: a name's module is loaded when the name is first used.
"""

import importlib
import importlib.util
import os
import pkgutil
import re
import sys

from colabcnn import onednn

# The stub for type checkers names each public name with its module.
_STUB = (pkgutil.get_data(__name__, "__init__.pyi") or b"").decode()
_MODULE_OF = {name: module for module, name in re.findall(r"^from (\S+) import (\w+) as", _STUB, re.MULTILINE)}

__all__ = [name for name in _MODULE_OF if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]  # `__init__.pyi` lists them.

# Keras fails to import where its default, TensorFlow, is missing (Colab's TPU runtime); JAX is there.
if "keras" not in sys.modules and "KERAS_BACKEND" not in os.environ and importlib.util.find_spec("tensorflow") is None:
    os.environ["KERAS_BACKEND"] = "jax"
onednn.switch_on()


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'colabcnn' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_MODULE_OF})

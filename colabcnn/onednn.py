"""TensorFlow's oneDNN operations: switched on before TensorFlow is imported; a run keeps its setting.

By default they are off on x86 processors without AVX-512, although this network trains faster with them there
(`benchmarks/ordinary_cpu.py` measures it). They change the last bits of a run, so its start records them. TensorFlow
reads the setting once, when it is imported:
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/util.cc
"""

import os
import sys

VARIABLE = "TF_ENABLE_ONEDNN_OPTS"


def switch_on() -> None:
    """Switch TensorFlow's oneDNN on, unless the user has set it or TensorFlow is imported already."""
    if "tensorflow" not in sys.modules:
        os.environ.setdefault(VARIABLE, "1")


def keep(recorded: bool | None) -> None:
    """Give TensorFlow the setting of a run's last start, unless it is imported already.

    Args:
        recorded: `onednn` of the run's last start; None changes nothing.
    """
    if recorded is not None and "tensorflow" not in sys.modules:
        os.environ[VARIABLE] = str(int(recorded))


def is_on() -> bool | None:
    """Return whether TensorFlow uses oneDNN's operations; None if it does not report it."""
    try:
        from tensorflow.python.util import _pywrap_util_port

        return bool(_pywrap_util_port.IsMklEnabled())
    except (ImportError, AttributeError):
        return None

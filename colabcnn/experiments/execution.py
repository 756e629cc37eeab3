"""How training steps are executed."""

from dataclasses import dataclass
from typing import Annotated

from colabcnn.experiments.checks import Flag, check_count, check_fields


@dataclass(frozen=True)
class Execution:
    """How training steps are executed on the device.

    Args:
        steps_per_call: steps that one call of a compiled function makes.
        xla: whether XLA compiles it; True under JAX.
        fused_batch_norm: whether each BatchNorm is one TensorFlow operation.
        xla_augmentation: whether XLA compiles only the augmentation in a step.
    """

    steps_per_call: Annotated[int, check_count, 1, 1024]
    xla: Flag
    fused_batch_norm: Flag = False
    xla_augmentation: Flag = False
    __post_init__ = check_fields

    def in_words(self) -> str:
        """Return the execution as text."""
        words = ["1 step a call" if self.steps_per_call == 1 else f"{self.steps_per_call} steps a call"]
        words += ["XLA"] if self.xla else []
        words += ["fused BatchNorm"] if self.fused_batch_norm else []
        words += ["augmentation by XLA"] if self.xla_augmentation else []
        return ", ".join(words)

"""An experiment's loss, its optimizer and the schedule of its learning rate."""

from collections.abc import Callable
from typing import Any

import keras

from colabcnn.experiments.experiment import NUM_CLASSES, Experiment
from colabcnn.experiments.ingredients import Adam, Constant, Muon, RiseAndFall
from colabcnn.network.keras_types import ops


class KernelMuon(keras.optimizers.Muon):
    """Keras's Muon for 4-D kernels over more than three channels; by itself it leaves 4-D kernels to Adam.

    It treats a kernel `(height, width, channels, filters)` as the matrix `(height * width * channels, filters)`. Before
    each step it scales the kernel to a norm of sqrt(filters), as airbench does
    (github.com/KellerJordan/cifar10-airbench). BatchNorm follows each convolution, so the scale changes no result of a
    training step, except through BatchNorm's epsilon. An orthogonal update has at most that norm, too, so the learning
    rate is at most about the rotation of a kernel in a step.

    Args:
        newton_schulz_dtype: dtype of the Newton-Schulz steps.
        **options: of `keras.optimizers.Muon`.
    """

    def __init__(self, newton_schulz_dtype: str = "float32", **options: Any):
        super().__init__(**options)
        self.newton_schulz_dtype = newton_schulz_dtype

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "newton_schulz_dtype": self.newton_schulz_dtype}

    def _should_use_adamw(self, variable):
        # A kernel over three channels gains nothing from Muon.
        return len(variable.shape) != 4 or variable.shape[2] <= 3

    def _muon_update_step(self, gradient, variable, lr, m):
        norm = ops.norm(ops.reshape(variable, (-1,)))
        self.assign(variable, variable * (variable.shape[-1] ** 0.5 / norm))
        super()._muon_update_step(gradient, variable, lr, m)

    def zeropower_via_newtonschulz5(self, x: Any, steps: int) -> Any:
        matrix = ops.cast(ops.reshape(x, (-1, x.shape[-1])), self.newton_schulz_dtype)
        return ops.cast(ops.reshape(super().zeropower_via_newtonschulz5(matrix, steps), x.shape), x.dtype)


def make_optimizer(experiment: Experiment, *, steps_per_epoch: int, precision: str) -> keras.optimizers.Optimizer:
    """Return the optimizer of an experiment.

    Args:
        experiment: `Experiment`.
        steps_per_epoch: steps per epoch, for the schedule.
        precision: "float32", "mixed_bfloat16" or "mixed_float16". With mixed_bfloat16, Muon computes its Newton-Schulz
            steps in bfloat16, as its author does; float16 has not been tried for them. With mixed_float16 the optimizer
            has loss scaling, which Keras adds only under a global policy. A step that overflows is then not counted,
            so a schedule ends as many steps before 0.

    Returns:
        A `keras.optimizers.Optimizer`.
    """
    settings, rate = experiment.optimizer, _rate_of(experiment, experiment.epochs * steps_per_epoch)
    match settings:
        case Adam():
            optimizer = keras.optimizers.Adam(rate)  # pyright: ignore[reportArgumentType]  # Its default is a float.
        case Muon():
            optimizer = KernelMuon(
                learning_rate=rate,
                adam_lr_ratio=settings.adam_learning_rate / settings.learning_rate,
                momentum=settings.momentum,
                ns_steps=settings.newton_schulz_steps,
                rms_rate=None,
                weight_decay=None,
                adam_weight_decay=None,
                newton_schulz_dtype="bfloat16" if precision == "mixed_bfloat16" else "float32",
            )
        case _:
            raise NotImplementedError(f"{settings} has no optimizer of Keras here.")
    # One replica has nothing to add up. TensorFlow keeps each all-reduce in a register of custom gradients, and with it
    # the step's graph, the images and the weights, until the process ends.
    optimizer._all_reduce_sum_gradients = lambda gradients_and_variables: gradients_and_variables
    return keras.optimizers.LossScaleOptimizer(optimizer) if precision == "mixed_float16" else optimizer


def _rate_of(experiment, steps):
    """Return the learning rate for Keras's optimizer: a number, or a schedule over the steps of the run."""
    highest = float(experiment.optimizer.learning_rate)  # Keras refuses a whole number.
    match experiment.schedule:
        case Constant():
            return highest
        case RiseAndFall(rise):
            return RiseAndFallSchedule(highest, round(rise * steps), steps)
    raise NotImplementedError(f"{experiment.schedule} has no schedule of Keras here.")


class RiseAndFallSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly from 0 (warmup), then falls linearly to 0 (decay).

    Args:
        highest: the rate at the end of the rise.
        rise_steps: number of steps of the rise; 0 begins with the highest rate.
        steps: number of all steps; after them the rate is 0.
    """

    def __init__(self, highest: float, rise_steps: float, steps: float):
        # JAX accepts no whole number of more than 32 bits.
        self.highest, self.rise_steps, self.steps = highest, float(rise_steps), float(steps)

    def __call__(self, step):
        step = ops.cast(step, "float32")
        share = (self.steps - step) / max(1, self.steps - self.rise_steps)
        share = ops.minimum(share, step / self.rise_steps) if self.rise_steps else share
        return self.highest * ops.maximum(share, 0.0)

    def get_config(self) -> dict[str, Any]:
        return {"highest": self.highest, "rise_steps": self.rise_steps, "steps": self.steps}


def make_loss(experiment: Experiment) -> str | Callable[[Any, Any], Any]:
    """Return an experiment's loss for `compile`: cross-entropy of whole-number labels, with its label smoothing."""
    if not experiment.label_smoothing:
        return "sparse_categorical_crossentropy"

    def smoothed_cross_entropy(labels, probabilities):
        labels = ops.one_hot(ops.cast(labels, "int32"), NUM_CLASSES)
        return keras.losses.categorical_crossentropy(labels, probabilities, label_smoothing=experiment.label_smoothing)

    return smoothed_cross_entropy

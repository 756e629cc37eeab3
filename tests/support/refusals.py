"""A device on which some calls of the step fail."""

import keras

from colabcnn.network.training_model import TrainingModel


def refuse_training(monkeypatch, refused):
    """Let a step of a call with several steps fail if `refused` is true for its number of positions."""
    step = TrainingModel.train_step

    def train_step(self, *args):
        batch = args[-1][-1] if keras.backend.backend() == "jax" else args[-1]
        positions = keras.utils.unpack_x_y_sample_weight(batch)[0]
        if self.execution.steps_per_call > 1 and refused(positions.shape[0]):
            raise ZeroDivisionError("division by zero")
        return step(self, *args)

    monkeypatch.setattr(TrainingModel, "train_step", train_step)

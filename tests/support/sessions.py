"""Train small runs in processes that a test can kill, without importing Keras again for each: sessions.py.

Reads one JSON object a line: `run` (options of `run`, and `recipe`, the experiment to train with a small network; the
default has neither augmentation nor dropout, whose compilation takes half of a session),
`altered_epoch` (one row of this epoch's plan is altered) and `kill`, when the session gets SIGKILL: {"io": n} at
its nth I/O call in a save, {"step": [epoch, step]}, {"validation": epoch}, {"restore": n} at the nth I/O call before
training, {"seconds": s}. Responds with one line: the exit status, negative for a signal, and what the session printed.
"""

import contextlib
import gc
import io
import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace

import keras
import numpy as np
from matplotlib import figure

from colabcnn import ABLATIONS, RECIPES, Error, run
from colabcnn.network import training_model as trainer
from colabcnn.training.recorder import Recorder

# The calls that change the disk, and `open`; between two of them the disk does not change.
CALLS = ("open", "write", "fsync", "replace", "unlink", "truncate", "mkdir")


def die():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


class KillAtCall:
    """Die at the nth I/O call of the library, half-way if it is a write."""

    def __init__(self, number):
        self.left = number
        self.on = False
        for name in CALLS:
            setattr(os, name, self.counted(name, getattr(os, name)))

    def counted(self, name, function):
        def call(*arguments, **keywords):
            if self.on:
                self.left -= 1
                if self.left == 0:
                    if name == "write":
                        function(arguments[0], arguments[1][: len(arguments[1]) // 2])
                    die()
            return function(*arguments, **keywords)

        return call


class Kill(keras.callbacks.Callback):
    """Die at the moment that `kill` names."""

    def __init__(self, kill):
        super().__init__()
        self.kill = kill
        self.calls = KillAtCall(kill.get("io") or kill.get("restore")) if {"io", "restore"} & set(kill) else None
        if "io" in kill:
            count_calls_of_saves(self.calls)
        if "restore" in kill:
            self.calls.on = True
        if "seconds" in kill:
            threading.Timer(kill["seconds"], die).start()

    def on_train_begin(self, logs=None):
        if "restore" in self.kill:
            self.calls.on = False

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1

    def on_train_batch_begin(self, batch, logs=None):
        if self.kill.get("step") == [self.epoch, batch]:
            die()

    def on_test_batch_begin(self, batch, logs=None):
        if self.kill.get("validation") == self.epoch:
            die()


def count_calls_of_saves(calls, save=Recorder._save):
    """Wait for each save, so that a call's number is its position in the save."""

    def save_and_wait(self, seconds):
        calls.on = True
        save(self, seconds)
        self.writer.wait()
        calls.on = False

    Recorder._save = save_and_wait


def alter_plan(altered_epoch, plan_epoch=trainer.plan_epoch):
    def plan_with_one_row_altered(seed, epoch, **arguments):
        plan = plan_epoch(seed, epoch, **arguments)
        if epoch == altered_epoch:
            plan.rows[3] = (plan.rows[3] + 1) % np.int64(len(plan.rows))
        return plan

    trainer.plan_epoch = plan_with_one_row_altered


def session(request):
    options = {"data": "synthetic", "train_size": 100, "val_size": 40, "checkpoint_minutes": 0} | request["run"]
    named = {**ABLATIONS, **RECIPES}[options.pop("recipe", "01_descending_kernels")]
    experiment = replace(named, name="small", kernel_sizes=(3,), filters=(4, 8), batch_size=16)
    kill = request.get("kill") or {}
    if request.get("altered_epoch"):
        alter_plan(request["altered_epoch"])
    try:
        result = run(experiment, callbacks=[Kill(kill)] if kill else [], **options)
    except Error as error:
        print(f"colabcnn: {error}")
        return 2
    except KeyboardInterrupt:
        return 3
    return 0 if result.complete else 3


def main():
    responses, sys.stdout = sys.stdout, sys.stderr
    # Once here, not in each session: Matplotlib's first figure takes long.
    figure.Figure().savefig(io.BytesIO())
    gc.freeze()  # So that no session looks for unused objects among those of TensorFlow.
    for line in sys.stdin:
        request = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1)
            with contextlib.suppress(BrokenPipeError):
                code = session(request)
            sys.stdout.flush()
            os._exit(code)
        os.close(writing)
        with open(reading, errors="replace") as output:
            printed = output.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"status": status, "output": printed}), file=responses, flush=True)


if __name__ == "__main__":
    main()

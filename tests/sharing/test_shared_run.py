"""A shared run is used like a run of one's own: shown, evaluated and continued."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

import colabcnn
from colabcnn import Error, evaluate, export, fetch, find_runs, load_model, predict, run, status
from colabcnn.store.checkpoint import newest_checkpoint
from colabcnn.store.run_folder import RunFolder, read_saved, verify
from support.file_server import FileServer
from support.runs import differences
from support.shared_files import COMPLETE, OPTIONS, altered

# gdown 5.2 leaves the connection of a download that failed to the garbage collector.
pytestmark = [pytest.mark.versions, pytest.mark.kill, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]

PICTURE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.fixture
def fetched(shared, tmp_path, offered):
    """The folder of a run that was shared without its checkpoint."""
    return fetch(offered(shared), folder=tmp_path / "fetched", quiet=True)


@pytest.fixture(scope="module")
def resumable(trained, tmp_path_factory):
    """The bytes of that run's file, with its checkpoint, so that it can be continued."""
    path = tmp_path_factory.mktemp("resumable") / "run.safetensors"
    export(trained, path, checkpoint=True, quiet=True)
    return path.read_bytes()


def test_fetched_run_equals_the_exported_one(trained, fetched):
    assert (fetched / "history.csv").read_bytes() == (trained / "history.csv").read_bytes()
    one, other = (read_saved(RunFolder(folder)) for folder in (fetched, trained))
    # The end of a start is written to run.json after the last checkpoint.
    assert one.record == other.record.with_last_start(ended=None, last_epoch=None)
    best = newest_checkpoint(trained / "checkpoints")[0].arrays["best"]
    assert all(np.array_equal(*pair) for pair in zip(one.checkpoint.arrays["best"], best, strict=True))
    assert status(fetched) == {**status(trained), "weights_sha256": None}
    assert (verify(fetched)[1], verify(trained)[1] is None) == (None, False)
    assert {path.name for path in fetched.iterdir()} == {
        "checkpoints",
        "curves.png",
        "history.csv",
        "run.json",
        "shared.json",
    }


def test_fetched_run_predicts_the_same(trained, fetched):
    images = PICTURE[None].astype(np.float32) / 255
    np.testing.assert_array_equal(
        load_model(fetched).predict(images, verbose=0), load_model(trained).predict(images, verbose=0)
    )
    assert predict(fetched, PICTURE).probabilities == predict(trained, PICTURE).probabilities


def test_fetched_run_is_shown_beside_an_own_run_and_marked(trained, fetched, tmp_path):
    own = tmp_path / "own" / "small" / "seed-7"
    shutil.copytree(trained, own)
    assert find_runs(tmp_path / "fetched", tmp_path / "own", name="small", trained=True) == [own, fetched]
    table = colabcnn.summarize(tmp_path / "fetched", tmp_path / "own").splitlines()
    assert ["shared by somebody" in row for row in table if "`small`" in row] == [False, True]
    assert colabcnn.explore(fetched, own)
    assert colabcnn.plot_confusion(fetched)


def test_picture_is_that_of_the_run(fetched):
    assert (fetched / "curves.png").read_bytes() == colabcnn.plot_curves(fetched)._repr_png_()


def test_losses_near_the_largest_float_are_plotted(shared, tmp_path, offered):
    content = altered(shared, lambda checkpoint: checkpoint.metadata["history"].update(loss=[3.4e38, -3.4e38]))
    fetched = fetch(offered(content), folder=tmp_path, quiet=True)
    assert colabcnn.plot_curves(fetched, metric="loss")._repr_png_()


def test_table_escapes_markup_from_a_run(trained, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "small" / "seed-0")
    recorded = json.loads((copy / "run.json").read_text())
    recorded["starts"][0]["device"] = "<img src=x> | a\nb"
    (copy / "run.json").write_text(json.dumps(recorded))
    (row,) = [line for line in colabcnn.summarize(tmp_path).splitlines() if "`small`" in line]
    assert "&lt;img src=x&gt; \\| a b" in row


def test_run_shared_without_its_checkpoint_is_neither_continued_nor_evaluated(fetched):
    for call in (lambda: run(COMPLETE, fetched, epochs=3, **OPTIONS), lambda: evaluate(fetched)):
        with pytest.raises(Error, match=r"shared without its checkpoint"):
            call()
    assert (fetched / "history.csv").exists()


def test_run_shared_without_its_checkpoint_is_not_continued_from_drive(fetched, tmp_path):
    for _ in range(2):  # The first call leaves nothing that the second one would find.
        with pytest.raises(Error, match=rf"{fetched} was shared without its checkpoint"):
            run(COMPLETE, tmp_path / "run", drive_folder=fetched, epochs=3, **OPTIONS)


def test_run_with_its_checkpoint_continues_as_the_same_run(trained, resumable, tmp_path, offered, few_test_images):
    fetched = fetch(offered(resumable), folder=tmp_path / "fetched", quiet=True)
    assert evaluate(fetched) == evaluate(shutil.copytree(trained, tmp_path / "measured"))
    own = shutil.copytree(trained, tmp_path / "own")
    for folder in (fetched, own):
        assert run(COMPLETE, folder, epochs=3, **OPTIONS).history["epoch"] == [1, 2, 3]
    assert differences(fetched, own) == []


def test_damaged_fetched_run_is_not_restarted(resumable, tmp_path, offered):
    fetched = fetch(offered(resumable), folder=tmp_path / "fetched", quiet=True)
    (path,) = (fetched / "checkpoints").iterdir()
    path.write_bytes(resumable[:-1])
    for call in (lambda: predict(fetched, PICTURE), lambda: run(COMPLETE, fetched, epochs=3, **OPTIONS)):
        with pytest.raises(Error, match=r"truncated or altered.*Fetch the run again"):
            call()
    assert path.read_bytes() == resumable[:-1]


def test_fetched_run_that_is_started_over_is_an_own_run(fetched, tmp_path):
    run(COMPLETE, fetched, epochs=1, start_over=True, **OPTIONS)
    assert not (fetched / "shared.json").exists()
    assert (fetched / "moved-aside-1" / "shared.json").exists()
    (row,) = [line for line in colabcnn.summarize(tmp_path / "fetched").splitlines() if "`small`" in line]
    assert "shared by somebody" not in row


def test_callback_states_of_a_shared_checkpoint_change_no_path(resumable, tmp_path, offered):
    victim = tmp_path / "thesis.weights.h5"
    victim.write_text("mine")
    values = {"filepath": str(victim), "best": None, "_batches_seen_since_last_saving": 0, "_last_batch_seen": 0}
    states = [{"class": "ModelCheckpoint", "monitor": "val_loss", "values": values}]
    content = altered(resumable, lambda checkpoint: checkpoint.metadata.update(callbacks=states))
    fetched = fetch(offered(content), folder=tmp_path / "fetched", quiet=True)
    mine = keras.callbacks.ModelCheckpoint(str(tmp_path / "mine.weights.h5"), save_weights_only=True)
    run(COMPLETE, fetched, epochs=3, callbacks=[mine], **OPTIONS)
    assert victim.read_text() == "mine"
    assert (tmp_path / "mine.weights.h5").exists()


HOSTILE_STATES = {
    "callbacks": lambda c: c.metadata.update(callbacks=[7]),
    "nested callbacks": lambda c: c.metadata.update(
        callbacks=[
            {"class": "ModelCheckpoint", "monitor": "val_loss", "values": {"best": json.loads("[" * 900 + "]" * 900)}}
        ]
    ),
    "optimizer": lambda c: c.arrays["optimizer"].pop(),
}


@pytest.mark.parametrize("kind", HOSTILE_STATES)
def test_state_that_does_not_match_is_one_readable_error(resumable, tmp_path, offered, kind):
    fetched = fetch(offered(altered(resumable, HOSTILE_STATES[kind])), folder=tmp_path / "fetched", quiet=True)
    mine = keras.callbacks.ModelCheckpoint(str(tmp_path / "mine.weights.h5"), save_weights_only=True)
    with pytest.raises(Error, match="the checkpoint's"):
        run(COMPLETE, fetched, epochs=3, callbacks=[mine], **OPTIONS)
    assert status(fetched)["epoch"] == 2


# A run of TensorFlow continues on a machine that has only JAX: from Colab's GPU runtime to its TPU runtime.
# If this environment has no TensorFlow, `TENSORFLOW_PYTHON` names the interpreter of one that has it.
HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
TENSORFLOW_PYTHON = os.environ.get("TENSORFLOW_PYTHON", sys.executable if HAS_TENSORFLOW else None)
COMPLETE_AS_CODE = "replace(ABLATIONS['06_final'], name='small', kernel_sizes=(3,), filters=(4, 8), batch_size=16)"
PREDICT = """
import sys
from dataclasses import replace
import keras, numpy as np
from colabcnn import ABLATIONS, export, fetch, load_model, run
assert keras.backend.backend() == BACKEND
def save_predictions(run_dir, path):
    images = np.random.default_rng(0).random((64, 32, 32, 3), dtype=np.float32)
    np.save(path, load_model(run_dir).predict(images, verbose=0))
OPTIONS = {"data": "synthetic", "train_size": 100, "val_size": 40, "precision": "float32", "quiet": True}
"""
TRAIN = """
run(COMPLETE, "trained/small/seed-0", epochs=2, **OPTIONS)
export("trained/small/seed-0", "plain.safetensors", quiet=True)
export("trained/small/seed-0", "resumable.safetensors", checkpoint=True, quiet=True)
save_predictions("trained/small/seed-0", "trained.npy")
"""
FETCH = """
plain, resumable = (fetch(f"{sys.argv[1]}/{name}", folder="fetched", quiet=True) for name in ("plain", "resumable"))
save_predictions(plain, "plain.npy")
save_predictions(resumable, "resumable.npy")
result = run(COMPLETE, resumable, epochs=3, **OPTIONS)
print(len(result.history["epoch"]), result.complete, resumable)
"""


@pytest.mark.skipif(not TENSORFLOW_PYTHON, reason="no TensorFlow here, and TENSORFLOW_PYTHON names none")
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_run_of_tensorflow_predicts_the_same_and_continues_under_jax(tmp_path):
    def python(interpreter, backend, body, *arguments):
        code = PREDICT.replace("BACKEND", repr(backend)) + body.replace("COMPLETE", COMPLETE_AS_CODE)
        environment = {**os.environ, "KERAS_BACKEND": backend}
        completed = subprocess.run(
            [interpreter, "-c", code, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert completed.returncode == 0, completed.stderr[-3000:]
        return completed.stdout

    python(TENSORFLOW_PYTHON, "tensorflow", TRAIN)
    server = FileServer(tmp_path)
    try:
        server.files |= {f"/{name}": (tmp_path / f"{name}.safetensors").read_bytes() for name in ("plain", "resumable")}
        epochs, complete, run_dir = python(sys.executable, "jax", FETCH, server.address).split()
        assert (epochs, complete) == ("3", "True")
    finally:
        server.close()
    trained, plain, resumable = (np.load(tmp_path / f"{name}.npy") for name in ("trained", "plain", "resumable"))
    np.testing.assert_allclose(plain, trained, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(plain, resumable)
    starts = json.loads((tmp_path / run_dir / "run.json").read_text())["starts"]
    assert ["tensorflow" in start["versions"] for start in starts] == [True, False]

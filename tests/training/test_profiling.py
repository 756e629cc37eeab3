"""A trace of a few steps is written to the given folder and does not change the run."""

import contextlib
import gzip
import json
from dataclasses import replace

import keras
import pytest

import where_time_goes
from colabcnn import Error, run
from colabcnn.network import devices
from colabcnn.training.profiling import _trace
from support.runs import differences

pytestmark = [pytest.mark.versions, pytest.mark.kill]


def test_trace_is_written_and_the_run_is_the_same(tmp_path, small_experiment, small_options, capsys):
    options = {**small_options, "epochs": 1, "train_size": 320, "quiet": False}
    run(small_experiment, tmp_path / "profiled", profile=tmp_path / "trace", **options)
    assert "A trace of 10 calls" in capsys.readouterr().out
    (trace,) = (tmp_path / "trace").rglob("*.xplane.pb")
    assert trace.stat().st_size > 10_000
    assert b"Conv2D" in trace.read_bytes() or b"convolution" in trace.read_bytes()
    table = where_time_goes.report(trace)
    assert any("Conv2D" in line or "fusion" in line or "convolution" in line for line in table[4:])
    if keras.backend.backend() == "jax":
        (perfetto,) = (tmp_path / "trace").rglob("perfetto_trace.json.gz")
        assert json.loads(gzip.decompress(perfetto.read_bytes()))["traceEvents"]
    run(small_experiment, tmp_path / "plain", **options)
    assert differences(tmp_path / "profiled", tmp_path / "plain") == []


@pytest.mark.colab
def test_epoch_of_few_steps_is_traced_to_its_end(tmp_path, small_experiment, small_options, capsys):
    run(
        small_experiment, tmp_path / "run", profile=tmp_path / "trace", **{**small_options, "epochs": 1, "quiet": False}
    )
    assert "A trace of 2 calls" in capsys.readouterr().out
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))


@pytest.mark.colab
def test_trace_of_the_users_own_goes_on(tmp_path, small_experiment, small_options, capsys):
    profile = {"profile": tmp_path / "ours", "epochs": 1, "quiet": False}
    with _trace(str(tmp_path / "own")), contextlib.suppress(Exception):  # Each backend has its own error.
        run(small_experiment, tmp_path / "run", **small_options | profile)
    assert "A trace of" not in capsys.readouterr().out
    assert list((tmp_path / "own").rglob("*.xplane.pb"))


@pytest.mark.colab
def test_run_that_ends_before_the_trace_starts_is_reported(tmp_path, small_experiment, small_options, capsys):
    options = {**small_options, "epochs": 1, "train_size": 80, "quiet": False}
    run(small_experiment, tmp_path / "run", profile=tmp_path / "trace", **options)
    assert "No trace: the first 5 calls are skipped, and there were only 5." in capsys.readouterr().out
    run(small_experiment, tmp_path / "run", profile=tmp_path / "trace", **options)
    assert "No trace was taken: nothing is left to train." in capsys.readouterr().out


@pytest.mark.colab
def test_trace_with_several_steps_a_call_contains_no_validation(
    tmp_path, small_experiment, small_options, capsys, monkeypatch
):
    execution = replace(devices.plain_execution(), steps_per_call=3)
    monkeypatch.setattr(devices, "auto_execution", lambda: execution)
    validated = []

    class TraceSeenInValidation(keras.callbacks.Callback):
        def on_test_batch_begin(self, batch, logs=None):
            validated.append(bool(list((tmp_path / "trace").rglob("*.xplane.pb"))))

    # 20 steps in 7 calls, the last of which makes 2.
    options = {**small_options, "epochs": 1, "train_size": 320, "quiet": False}
    run(small_experiment, tmp_path / "run", profile=tmp_path / "trace", callbacks=[TraceSeenInValidation()], **options)
    assert "A trace of 2 calls" in capsys.readouterr().out
    assert validated[-1]


def test_folder_that_cannot_be_created_is_refused(tmp_path, small_experiment, small_options):
    (tmp_path / "file").write_text("")
    with pytest.raises(Error, match="give another folder"):
        run(small_experiment, tmp_path / "run", profile=tmp_path / "file" / "trace", **small_options)

"""`measure` writes its results to a file, and a file from somebody else is checked before it is shown."""

import json
import os
import time
from dataclasses import fields, replace
from typing import get_args

import pytest

from colabcnn import Error, measure, offer_measurement, own_process, summarize
from colabcnn.cli import main
from colabcnn.errors import Interrupted
from colabcnn.experiments.execution import Execution
from colabcnn.measuring import killed_run, trials
from colabcnn.measuring import measurement as measuring
from colabcnn.measuring.trials import Setting, train, train_interrupted, train_plain
from colabcnn.network import devices
from colabcnn.network.training_model import TrainingModel
from colabcnn.store.measurements import MOST_BYTES, Measurement, Training, read_measurement
from colabcnn.training.progress import ProgressLine
from colabcnn.viewing.measurement_table import COLUMNS
from support.refusals import refuse_training

pytestmark = [pytest.mark.versions, pytest.mark.kill]

SIZES = {"data": "synthetic", "train_size": 100, "val_size": 40}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder of results with one measured file, of a small network."""
    results = tmp_path_factory.mktemp("results")
    small = {"name": "small", "kernel_sizes": (3,), "filters": (4, 4, 8), "batch_size": 16}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(measuring, "EXPERIMENT", replace(measuring.EXPERIMENT, **small))
        patched.setattr(trials, "PATIENCE", 30)
        measure(results / "measured", **SIZES, sent_by="Ada\u3000L.", quiet=True)
    return results


@pytest.fixture
def values(measured):
    (path,) = (measured / "measured").iterdir()
    return json.loads(path.read_text())


@pytest.fixture
def setting(tmp_path, small_experiment):
    return Setting(small_experiment, "synthetic", 100, 40, 2, tmp_path, ProgressLine(quiet=True))


def put(results, values, name="a.json"):
    """Write a measured file and return its row of the table, by column."""
    (results / "measured").mkdir(exist_ok=True)
    text = values if isinstance(values, str) else json.dumps(values)
    (results / "measured" / name).write_text(text)
    return rows_of(results)[0]


def rows_of(results):
    lines = summarize(results).measured.splitlines()
    cells = [line[2:-2].split(" | ") for line in lines]
    assert {len(row) for row in cells} <= {len(COLUMNS)}
    return [dict(zip(COLUMNS, row, strict=True)) for row in cells[2:]]


def test_file_has_the_results_and_the_device(measured):
    (path,) = (measured / "measured").iterdir()
    one = read_measurement(path)
    assert path.stat().st_size < MOST_BYTES / 2
    assert (one.device, one.backend) == (devices.device_name(), devices.backend())
    assert (one.versions, one.precision) == (devices.versions(), devices.auto_precision())
    assert vars(one.auto.steps) == vars(devices.auto_execution())
    assert vars(one.plain.steps) == vars(devices.plain_execution())
    assert [len(training.seconds) for training in (one.auto, one.plain, one.resumed)] == [3] * 3
    assert (one.train_size, one.val_size, one.data, one.sent_by) == (100, 40, "synthetic", "Ada L.")
    assert one.matrix_gflops > 1
    assert one.peak_memory > 100e6
    assert one.auto.start_seconds > one.auto.seconds[0]


def test_both_executions_agree_and_a_killed_run_resumes_as_the_same_run(measured):
    (path,) = (measured / "measured").iterdir()
    one = read_measurement(path)
    assert one.agrees(one.plain)
    assert one.interruption.by == "SIGKILL"
    assert (one.interruption.first_epoch, one.interruption.bit_for_bit) == (2, True)
    assert one.resumed.loss == one.auto.loss


def test_table_and_paragraph_show_the_results(measured, capsys):
    (row,) = rows_of(measured)
    assert row["from"].startswith("sent by Ada L., ")
    assert row["do both agree"].startswith("yes, training loss differs by a share of up to ")
    assert row["interrupted and resumed"] == "SIGKILL in epoch 2, continued at epoch 2, bit for bit the same run"
    assert row["what fell back"] == "nothing"
    (path,) = (measured / "measured").iterdir()
    offer_measurement(path)
    printed = capsys.readouterr().out
    assert str(path) in printed
    for part in (devices.device_name(), row["share of the peak"], row["peak memory"], "measured, with 100 training"):
        assert part in printed


def test_summary_prints_measured_files_below_the_runs(measured, tmp_path, capsys):
    assert main(["summary", str(measured), "--markdown"]) == 0
    runs, files = capsys.readouterr().out.split("\n\n")
    assert runs == str(summarize(measured))
    assert files.startswith("| device | with |")
    assert summarize(measured)._repr_markdown_() == f"{runs}\n\n{files.rstrip()}"
    assert main(["summary", str(tmp_path)]) == 0
    assert "\n\n" not in capsys.readouterr().out


@pytest.mark.parametrize("column", ["loss", "accuracy"])
@pytest.mark.newest
def test_executions_that_differ_are_reported(tmp_path, values, column):
    values["train_size"] = 50_000
    assert put(tmp_path, values)["do both agree"].startswith("yes")
    values["plain"][column][1] = values["auto"][column][1] * 0.95 - 0.02
    reported = put(tmp_path, values)["do both agree"]
    assert reported.startswith("NO, training loss differs by")
    assert reported.endswith(": MORE than 0.0189")


def test_fallback_is_recorded_with_its_reason(setting, monkeypatch):
    refuse_training(monkeypatch, lambda positions: True)
    with devices.execution_given(Execution(3, xla=devices.backend() == "jax")):
        training = train(setting, "auto")
    assert training.refused.startswith("3 steps a call")
    assert training.refused.endswith(": division by zero")
    assert training.steps.steps_per_call == 1


@pytest.mark.parametrize("error", [Interrupted, KeyboardInterrupt])
def test_measurement_that_is_stopped_is_not_said_to_continue(tmp_path, monkeypatch, error):
    def stopped(*args, **options):
        raise error

    monkeypatch.setattr(trials, "run", stopped)
    with pytest.raises(Interrupted, match="the measurement was stopped; the same call starts it again"):
        measure(tmp_path, data="synthetic", train_size=100, val_size=40, quiet=True)


def test_failed_plain_training_does_not_fail_the_measurement(setting, monkeypatch):
    def refused(self, *args):
        raise ZeroDivisionError("plainly impossible")

    monkeypatch.setattr(TrainingModel, "train_step", refused)
    training, failed = train_plain(setting)
    assert training is None
    assert "plainly impossible" in failed


@pytest.mark.parametrize(
    ("broken", "seconds", "reason"),
    [
        ((devices, "is_tpu", lambda: True), 600, "only one process can use a TPU"),
        (
            (own_process, "_START", "raise SystemExit('no memory is left')"),
            600,
            "the process ended with 1 and no checkpoint: no memory",
        ),
        ((own_process, "_START", "import time; time.sleep(600)"), 2, "the process did not reach epoch 2 in 2 s"),
    ],
)
@pytest.mark.newest
def test_process_that_cannot_be_killed_in_epoch_2_is_reported_with_the_reason(
    setting, monkeypatch, broken, seconds, reason
):
    monkeypatch.setattr(*broken)
    began = time.monotonic()
    folder, options = setting.folder / "run", setting.options()
    reported = killed_run.train_until_killed(setting.experiment, folder, options, seconds=seconds)
    assert reported.startswith(reason)
    assert time.monotonic() - began < 30


@pytest.mark.newest
def test_exception_ends_the_run_if_no_process_can_be_killed(setting, monkeypatch):
    monkeypatch.setattr(devices, "is_tpu", lambda: True)
    auto = train(setting, "auto")
    resumed, interruption = train_interrupted(setting, auto)
    assert (interruption.by, interruption.why_not_killed) == ("exception", "only one process can use a TPU")
    assert (interruption.first_epoch, interruption.bit_for_bit, interruption.failed) == (2, True, "")
    assert resumed.loss == auto.loss


@pytest.mark.newest
def test_run_that_cannot_be_resumed_is_reported(tmp_path, setting, measured, values, monkeypatch):
    def fail(experiment, run_dir, options):
        run_dir.write_text("no folder")

    monkeypatch.setattr(devices, "is_tpu", lambda: True)
    monkeypatch.setattr("colabcnn.measuring.trials.train_until_exception", fail)
    (path,) = (measured / "measured").iterdir()
    resumed, interruption = train_interrupted(setting, read_measurement(path).auto)
    assert resumed is None
    assert "is a file; expected a folder, or" in interruption.failed
    values |= {"resumed": None, "interruption": vars(interruption)}
    assert f"did NOT go through: {interruption.failed}" in put(tmp_path, values)["interrupted and resumed"]


@pytest.mark.newest
def test_resumed_run_that_differs_is_reported(tmp_path, values):
    values["interruption"]["bit_for_bit"] = False
    same = "SIGKILL in epoch 2, continued at epoch 2, training loss differs by a share of up to 0.0000, accuracy by up"
    assert put(tmp_path, values)["interrupted and resumed"] == f"{same} to 0.0000"
    values["resumed"]["loss"][2] *= 2
    assert put(tmp_path, values)["interrupted and resumed"].endswith(": MORE than 0.2100")
    values["interruption"]["first_epoch"] = 1
    assert "did NOT continue" in put(tmp_path, values)["interrupted and resumed"]


def test_slow_device_takes_fewer_images_and_a_very_slow_one_fewer_epochs(setting, capsys):
    setting = replace(setting, train_size=1000, val_size=200, epochs=3, progress=ProgressLine())
    assert measuring._fit_to_time(setting, time.monotonic() + 6000) == setting
    assert "fit into the time" not in capsys.readouterr().out
    fitted = measuring._fit_to_time(replace(setting, folder=setting.folder / "late"), time.monotonic())
    assert (fitted.train_size, fitted.val_size, fitted.epochs) == (8 * 16, 25, 2)
    assert "128 training images, not 1,000, fit into the time" in capsys.readouterr().out


def test_device_that_compiles_for_long_trains_more_than_the_fewest_images(setting, monkeypatch):
    column = dict.fromkeys(("loss", "accuracy", "val_loss", "val_accuracy"), (0.5, 0.5))
    trial = Training(devices.plain_execution(), "", start_seconds=300, seconds=(0.064, 0.064), **column)
    monkeypatch.setattr(measuring, "train", lambda setting, name: trial)
    setting = replace(setting, train_size=1000, val_size=200, epochs=3)
    assert measuring._fit_to_time(setting, time.monotonic() + 600) == setting


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_size": 0}, "train_size is 0; expected a whole number from 1"),
        ({"train_size": 60_000}, "train_size is 60000; expected a whole number from 1 to 50000"),
        ({"val_size": 2.5}, "val_size is 2.5; expected"),
        ({"minutes": 0}, "minutes is 0; expected a number above 0"),
        ({"minutes": float("nan")}, "minutes is nan; expected"),
        ({"sent_by": "a\x1b[2Jb"}, "expected one line of at most 60 printable characters"),
    ],
)
def test_invalid_arguments_are_refused_before_the_measurement(tmp_path, options, message):
    with pytest.raises(Error, match=message):
        measure(tmp_path / "measured", **{**SIZES, **options})
    assert not (tmp_path / "measured").exists()


def test_command_line_measures_with_the_same_checks(tmp_path, capsys):
    assert main(["measure", "-o", str(tmp_path / "measured"), "--minutes", "-1"]) == 2
    assert "minutes is -1.0; expected" in capsys.readouterr().err


def with_value(name, value):
    return lambda values: values.update({name: value})


HOSTILE = {
    "another format": (with_value("format", 2), "has format 2; this version reads format 1"),
    "a format that is true": (with_value("format", True), "has format True"),
    "no format": (lambda values: values.pop("format"), "is not a measurement"),
    "an unknown field": (with_value("command", "rm"), "unknown to this version"),
    "a missing field": (lambda values: values.pop("auto"), "the file lacks"),
    "a wrong type": (with_value("device", ["T4"]), "device is"),
    "a long text": (with_value("device", "x" * 121), "device is"),
    "an escape sequence": (with_value("sent_by", "\x1b[2J"), "sent_by is"),
    "a right-to-left override": (with_value("sent_by", "a\u202eb"), "sent_by is"),
    "half a surrogate pair": (with_value("sent_by", "\ud800"), "sent_by is"),
    "an invalid date": (with_value("date", "2026-11-26\n"), "date is"),
    "not a number": (with_value("minutes", float("nan")), "minutes is nan"),
    "infinity": (with_value("matrix_gflops", float("inf")), "matrix"),
    "a boolean for a count": (with_value("train_size", True), "train"),
    "no images": (with_value("train_size", 0), "train"),
    "more versions than there are": (with_value("versions", {str(n): "1" for n in range(21)}), "versions is"),
    "epochs of zero seconds": (lambda values: values["auto"].update(seconds=[0, 0, 0]), "seconds is"),
    "no epochs": (lambda values: values["auto"].update(loss=[]), "loss is"),
    "too many epochs": (lambda values: values["auto"].update(loss=[1] * 101), "loss is"),
    "lists of different lengths": (lambda values: values["plain"]["loss"].pop(), "not have the same number of epochs"),
    "an accuracy above 1": (lambda values: values["plain"]["accuracy"].append(1.5), "accuracy is"),
    "a nested field of another type": (with_value("auto", None), "its auto is None; expected its fields by name"),
    "invalid steps": (lambda values: values["auto"].update(steps=7), "its steps is 7; expected its fields by name"),
}


NOT_NULL = [field.name for field in fields(Measurement) if type(None) not in get_args(field.type)]
HOSTILE |= {f"no {name}": (with_value(name, None), f"{name} is None") for name in NOT_NULL}


@pytest.mark.parametrize("case", HOSTILE)
def test_invalid_file_is_refused_with_its_name(tmp_path, values, case):
    good = json.dumps(values)
    change, message = HOSTILE[case]
    change(values)
    row = put(tmp_path, values, "bad.json")
    assert row["device"].startswith("'bad.json' ")
    assert message in row["device"]
    assert set(list(row.values())[1:]) == {""}
    put(tmp_path, good, "good.json")
    assert [row["from"][:11] for row in rows_of(tmp_path)] == ["", "sent by Ada"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[1, 2]", "is not a measurement"),
        ('{"format": ' + "1" * 9000 + "}", "cannot be read as JSON"),
        ('{"format": 1, "x": "' + "x" * MOST_BYTES + '"}', f"has more than {MOST_BYTES} bytes"),
    ],
)
def test_file_that_is_no_json_or_too_large_is_refused(tmp_path, text, message):
    assert message in put(tmp_path, text)["device"]


def test_file_that_nests_deeply_is_refused(tmp_path, values):
    # The depth that Python can read and print depends on its version.
    nested = "[" * 8000 + "]" * 8000
    for text in (nested, json.dumps(values | {"device": "HERE"}).replace('"HERE"', nested)):
        assert put(tmp_path, text)["device"].startswith("'a.json' ")


def test_anything_but_a_file_is_refused(tmp_path):
    (tmp_path / "measured" / "folder.json").mkdir(parents=True)
    os.mkfifo(tmp_path / "measured" / "pipe.json")
    (tmp_path / "measured" / "\udcff.json").write_bytes(b"\xff")
    reported = [row["device"] for row in rows_of(tmp_path)]
    assert reported == ["'folder.json' is not a file.", "'pipe.json' is not a file.", reported[2]]
    assert "cannot be read as JSON" in reported[2]
    reported[2].encode()


def test_sent_text_is_escaped_in_the_table(tmp_path, values):
    values["sent_by"] = "<b>A</b> | ![x](http://e.org) `c` $m$"
    row = put(tmp_path, values)
    assert row["from"].startswith(r"sent by &lt;b&gt;A&lt;/b&gt; \| !\[x\](http://e.org) \`c\` \$m\$, ")
    values["sent_by"] = ""
    assert put(tmp_path, values)["from"].startswith("sent by somebody, ")

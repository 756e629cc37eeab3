"""What a sweep is given, and what it gives to each run's process."""

import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest

from colabcnn import Error, run, sweep
from colabcnn.cli import _parser, main
from colabcnn.experiments.catalog import EXPERIMENTS
from colabcnn.experiments.checks import parse_seeds
from colabcnn.store.checkpoint import Checkpoint, write_checkpoint
from colabcnn.store.experiment_file import read_experiment, write_experiment
from colabcnn.training.request import HELP, OF_ONE_RUN, RunRequest
from support.runs import make_record
from support.shared_files import COMPLETE, EXPERIMENT, OPTIONS


@pytest.mark.parametrize(
    ("given", "seeds"), [("0:5", [0, 1, 2, 3, 4]), ("7", [7]), ("0:1", [0]), (3, [3]), (range(2), [0, 1]), ([4], [4])]
)
def test_seeds(given, seeds):
    assert parse_seeds(given) == seeds


@pytest.mark.parametrize("given", ["5:3", "3:3", "", "a:b", "1:", ":2", "-1", "1.5", []])
def test_seeds_that_are_none_are_refused(given):
    with pytest.raises(Error, match="expected A:B with B above A"):
        parse_seeds(given)


def test_arguments_of_a_request_are_the_same_request_to_the_command_line():
    request = RunRequest("06_final", "run dir", "drive", "folder", 7, seed=3, hours=0.5, quiet=True, drive_minutes=2)
    options = _parser().parse_args(["train", "06_final", *request.arguments()])
    options.experiment, options.allow_long, options.callbacks = request.experiment, False, ()
    again = RunRequest(**{field.name: getattr(options, field.name) for field in fields(RunRequest)})
    assert again == replace(request)


def test_experiment_of_ones_own_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "folder" / "experiment.json"
    for experiment in (EXPERIMENT, *EXPERIMENTS.values()):
        write_experiment(path, experiment)
        assert read_experiment(str(path)) == experiment
    assert read_experiment(EXPERIMENT) is EXPERIMENT
    path.write_text('{"name": "6 \\/"}')
    with pytest.raises(Error, match=r"experiment\.json: name is '6 /'"):
        read_experiment(str(path))
    path.write_text("no JSON")
    with pytest.raises(Error, match="expected the settings of an experiment as JSON"):
        read_experiment(str(path))


def test_file_with_a_byte_order_mark_is_read_and_one_with_a_field_twice_is_refused(tmp_path):
    path = tmp_path / "mine.json"
    write_experiment(path, EXPERIMENT)
    text = path.read_text()
    path.write_text(text, encoding="utf-8-sig")
    assert read_experiment(str(path)) == EXPERIMENT
    path.write_text(text.replace('"dropout":', '"dropout": 0.5, "dropout":', 1))
    with pytest.raises(Error, match="it has 'dropout' twice"):
        read_experiment(str(path))


@pytest.mark.parametrize("flag", ["start_over", "allow_long", "quiet"])
def test_text_is_no_flag(tmp_path, flag):
    with pytest.raises(Error, match=f"{flag} is 'False'"):
        RunRequest(EXPERIMENT, tmp_path, **{flag: "False"})


def test_sweep_takes_the_options_of_run_except_those_of_one_run(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    offered = {name.replace("-", "_") for name in re.findall(r"--([\w-]+)", capsys.readouterr().out)}
    assert {*HELP} - {*OF_ONE_RUN} <= offered
    assert not offered & {*OF_ONE_RUN}
    for name in ("seed", "start_over", "speed"):
        with pytest.raises(Error, match=f"{name} is no option of a sweep"):
            sweep("06_final", seeds=0, root=tmp_path / "runs", **{name: 1})
    with pytest.raises(Error, match="epochs is -1"):
        sweep("06_final", seeds=0, root=tmp_path / "runs", epochs=-1)
    assert not (tmp_path / "runs").exists()


def test_sweep_writes_what_a_kill_has_kept_from_a_finished_run(trained, tmp_path):
    run_dir = shutil.copytree(trained, tmp_path / "runs" / "small" / "seed-0")
    (run_dir / "model.keras").unlink()
    assert [*sweep(COMPLETE, seeds=0, root=tmp_path / "runs", **OPTIONS).values()] == ["finished"]
    assert (run_dir / "model.keras").exists()


def test_dry_run_in_python_returns_the_states(tmp_path, capsys):
    states = sweep([EXPERIMENT, "06_final"], seeds="0:2", root=tmp_path / "runs", dry_run=True)
    assert list(states.values()) == ["waiting"] * 4
    assert next(iter(states)) == tmp_path / "runs" / "small" / "seed-0"
    assert capsys.readouterr().out.count("would start") == 4
    sweep(EXPERIMENT, seeds=0, root=tmp_path / "runs", drive=tmp_path / "drive", dry_run=True)
    assert "would start, or continue from Drive" in capsys.readouterr().out


def test_dry_run_shows_a_finished_runs_own_length(trained, tmp_path, capsys):
    shutil.copytree(trained.parent, tmp_path / "runs" / "small")
    options = {**OPTIONS, "quiet": False, "root": tmp_path / "runs", "seeds": 0, "dry_run": True}
    for epochs in (None, 1):
        assert [*sweep(COMPLETE, epochs=epochs, **options).values()] == ["finished"]
        assert "finished, epoch 2 of 2" in capsys.readouterr().out


def test_sweep_names_the_length_over_which_a_runs_rate_falls(tmp_path, small_recipe, small_options, capsys):
    root = tmp_path / "runs"
    run(small_recipe, root / "small" / "seed-0", **{**small_options, "epochs": 2})
    options = {name: small_options[name] for name in ("data", "train_size", "val_size")}
    assert [*sweep(small_recipe, seeds=0, root=root, dry_run=True, **options).values()] == ["finished"]
    assert "small/seed-0: The learning rate falls over 2 epochs, not 3." in capsys.readouterr().out


def test_drive_that_is_the_root_is_refused(tmp_path):
    with pytest.raises(Error, match="drive and root are both"):
        sweep(EXPERIMENT, seeds=0, root=tmp_path / "runs", drive=tmp_path / "runs", data="synthetic")
    assert not (tmp_path / "runs").exists()


def test_two_experiments_of_one_name_are_refused(tmp_path):
    other = replace(EXPERIMENT, dropout=0.5)
    with pytest.raises(Error, match=f"two experiments are named '{EXPERIMENT.name}'"):
        sweep([EXPERIMENT, other], seeds="0:2", root=tmp_path / "runs", data="synthetic", dry_run=True)
    same = sweep([EXPERIMENT, EXPERIMENT], seeds=[0, 0], root=tmp_path / "runs", data="synthetic", dry_run=True)
    assert len(same) == 1


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"experiments": Path("mine.json")}, "expected a name or a colabcnn.Experiment"),
        ({"experiments": 6}, "expected a name or a colabcnn.Experiment"),
        ({"seeds": 2.5}, "seed is 2.5; expected a whole number"),
        ({"seeds": "0:999999999"}, "at most 10,000 of them"),
        ({"scheduler": 8786}, "does not answer"),
    ],
)
def test_argument_of_another_type_is_one_error(tmp_path, bad, words):
    with pytest.raises(Error, match=words):
        sweep(**{"experiments": EXPERIMENT, "seeds": 0, "root": tmp_path / "runs", "data": "synthetic", **bad})


def test_dry_run_says_what_would_fail_and_names_no_file_that_is_not_there(tmp_path):
    options = {"seeds": 0, "root": tmp_path / "runs", "data": "synthetic", "dry_run": True}
    folder = tmp_path / "runs" / EXPERIMENT.name / "seed-0"
    folder.mkdir(parents=True)
    other = make_record(EXPERIMENT, seed=1, data="synthetic")
    checkpoint = Checkpoint(1, "run", {"model": []}, {"run": other.to_json()})
    write_checkpoint(folder / "checkpoints", checkpoint)
    with pytest.raises(Error, match=r"1 of 1 runs would fail.*its seed is 1, now given 0") as caught:
        sweep(EXPERIMENT, **options)
    assert "train.log" not in str(caught.value)

"""`run.json` is read as written, refused if another version wrote it, and never lost."""

import json
import shutil
from dataclasses import replace

import pytest

from colabcnn import ABLATIONS, RECIPES, Error, run, status
from colabcnn.errors import UnknownFormatError
from colabcnn.experiments.execution import Execution
from colabcnn.store.checkpoint import newest_checkpoint, write_checkpoint
from colabcnn.store.run_folder import RunFolder
from colabcnn.store.run_record import FORMAT, RunRecord, Start, first_difference, identity_of
from support.runs import make_record
from support.shared_files import COMPLETE, OPTIONS


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", [*ABLATIONS, *RECIPES])
def test_record_is_the_same_after_json(name):
    start = Start(
        "2026-01-01T00:00:00+00:00", 3, "T4", {"keras": "3.13.2"}, execution=Execution(2, xla=True), onednn=False
    )
    record = (
        make_record({**ABLATIONS, **RECIPES}[name]).with_start(start).with_last_start(ended="the end", last_epoch=5)
    )
    assert RunRecord.from_json(json.loads(json.dumps(record.to_json())), "run.json") == record


def test_fingerprint_differs_between_runs_but_not_with_length_or_starts():
    record = make_record(ABLATIONS["06_final"])
    longer = replace(record, experiment=replace(record.experiment, epochs=701), starts=())
    assert longer.fingerprint() == record.fingerprint()
    others = [
        replace(record, seed=1),
        replace(record, data_sha256="1" * 64),
        make_record(ABLATIONS["05_ascending_kernels"]),
    ]
    recipe = make_record(RECIPES["08_in_minutes"])
    others += [recipe, replace(recipe, experiment=replace(recipe.experiment, epochs=11))]
    assert len({other.fingerprint() for other in [record, *others]}) == 6


def test_fingerprint_is_the_one_that_sessions_on_drive_have():
    record = RunRecord(RECIPES["08_in_minutes"], 3, "synthetic", "0" * 64, 100, 40, 0, "float32")
    assert record.fingerprint() == "4b1e949e6bbb0af5b2dccdd83650c332ece45799442cd6077eedff8f6bf08de2"


def test_first_difference_is_named_and_open_fields_are_not_compared():
    final = identity_of(ABLATIONS["06_final"], seed=0)
    assert first_difference(final, identity_of(ABLATIONS["06_final"])) is None
    assert first_difference(final, identity_of(ABLATIONS["06_final"], seed=1)) == ("seed", 0, 1)
    variant = replace(ABLATIONS["06_final"], optimizer=RECIPES["08_in_minutes"].optimizer)
    assert first_difference(final, identity_of(variant)) == ("experiment.optimizer.kind", "Adam", "Muon")
    plain = identity_of(replace(ABLATIONS["06_final"], augmentation=None))
    assert first_difference(final, plain) == ("experiment.augmentation", True, False)
    assert first_difference(plain, final) == ("experiment.augmentation", False, True)


@pytest.mark.parametrize("number", [1, 3, "2", None])
def test_record_of_an_unknown_format_is_refused_with_its_number_and_kept(tmp_path, trained, number):
    folder = RunFolder(shutil.copytree(trained, tmp_path / "run"))
    record = json.loads(folder.run_json.read_text())
    record |= {"format": number}
    if number == 1:  # As version 0.1.0 wrote it.
        del record["format"]
    folder.run_json.write_text(json.dumps(record))
    before = contents(folder.path)
    for call in (lambda: run(COMPLETE, folder.path, epochs=2, **OPTIONS), lambda: status(folder.path)):
        with pytest.raises(UnknownFormatError, match=rf"is of format {number!r}; .* reads format {FORMAT}\."):
            call()
    after = contents(folder.path)
    assert {path: after.get(path) for path in before if path.name != "lock"} == {
        path: content for path, content in before.items() if path.name != "lock"
    }
    assert not list(folder.path.glob("moved-aside-*"))


def test_checkpoint_of_an_unknown_format_is_refused_and_kept(tmp_path, trained, monkeypatch):
    folder = shutil.copytree(trained, tmp_path / "run")
    checkpoint, _ = newest_checkpoint(folder / "checkpoints")
    with monkeypatch.context() as patched:
        patched.setattr("colabcnn.store.checkpoint.FORMAT", 3)
        newer = write_checkpoint(folder / "checkpoints", replace(checkpoint, epoch=4))
    with pytest.raises(UnknownFormatError, match=r"epoch-0+4-\w+\.safetensors is of format 3"):
        run(COMPLETE, folder, epochs=5, **OPTIONS)
    assert newer.exists()
    assert not list(folder.glob("moved-aside-*"))


def test_record_of_an_unknown_format_on_drive_is_refused_and_stays(tmp_path, small_experiment, small_options):
    run(small_experiment, tmp_path / "here", drive_folder=tmp_path / "drive", drive_minutes=0, **small_options)
    run_json = tmp_path / "drive" / "run.json"
    run_json.write_text(json.dumps({**json.loads(run_json.read_text()), "format": 3}))
    before = contents(tmp_path / "drive")
    with pytest.raises(UnknownFormatError, match=r"drive/run\.json is of format 3"):
        run(small_experiment, tmp_path / "elsewhere", drive_folder=tmp_path / "drive", **small_options)
    assert contents(tmp_path / "drive") == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"seed": True}, "seed is True"),
        ({"data": "mnist"}, "data is 'mnist'"),
        ({"precision": "float8"}, "precision is 'float8'"),
        ({"data_sha256": "0"}, "data_sha256 is '0'"),
        ({"experiment": {"name": "x", "optimizer": {"kind": "Sgd"}}}, "kind 'Sgd', unknown to this version"),
        ({"experiment": []}, "expected its fields by name"),
        ({"experiment": "06_final"}, "expected its fields by name"),
        ({"experiment": {}}, "its experiment lacks"),
        ({"starts": [{"speed": 1}]}, "one of its starts has"),
        ({"starts": [{}]}, "does not describe a run"),
        ({"starts": 5}, "does not describe a run"),
    ],
)
def test_invalid_record_is_refused_in_one_message(change, words):
    with pytest.raises(Error, match=r"^run\.json does not describe a run") as raised:
        RunRecord.from_json({**make_record(ABLATIONS["06_final"]).to_json(), **change}, "run.json")
    assert words in str(raised.value)

"""A file that `export` has not written is refused before any part of it is used."""

import json
import tracemalloc

import numpy as np
import pytest

from colabcnn import fetch
from colabcnn.store.checkpoint_files import checkpoint_files
from support.shared_files import (
    DIGEST_INSIDE,
    altered,
    check_refused,
    join_file,
    split_file,
    with_header,
    with_text,
)

# gdown 5.2 leaves the connection of a download that failed to the garbage collector.
pytestmark = [pytest.mark.versions, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]

NO_CHECKPOINT = "not a checkpoint"
NO_RUN = "does not describe a run"
# Text that is no header, with a place for the digest.
DIGEST = '\\"sha256\\": \\"' + "0" * 64 + '\\"'


def with_metadata(**changes):
    return lambda content: altered(content, lambda checkpoint: checkpoint.metadata.update(changes))


def with_record(**changes):
    return lambda content: altered(content, lambda checkpoint: checkpoint.metadata["run"].update(changes))


def with_settings(**changes):
    return lambda content: altered(content, lambda c: c.metadata["run"]["experiment"].update(changes))


def with_start(**changes):
    return lambda content: altered(content, lambda c: c.metadata["run"]["starts"][0].update(changes))


def with_history(**columns):
    return lambda content: altered(content, lambda c: c.metadata["history"].update(columns))


def with_arrays(change):
    return lambda content: altered(content, lambda checkpoint: change(checkpoint.arrays))


def with_checkpoint(**changes):
    return lambda content: altered(content, lambda checkpoint: vars(checkpoint).update(changes))


def with_entry(**changes):
    """Change the header's entry of the second array."""
    return lambda content: with_header(content, lambda header: header["best/0001"].update(changes))


def renamed(old, new):
    return lambda content: with_header(content, lambda header: header.update({new: header.pop(old)}))


def with_twice(name):
    """Give an array two entries in the header."""

    def change(content):
        header, data = split_file(content)
        entry = f'"{name}":{json.dumps(json.loads(header)[name])}'
        return join_file(header.rstrip()[:-1] + f",{entry}}}", data)

    return change


def with_overlap(content):
    """Give two arrays of the same shape the same place in the header."""

    def change(header):
        header["best/0003"]["data_offsets"] = header["best/0002"]["data_offsets"]

    return with_header(content, change)


def with_type(dtype):
    def change(arrays):
        arrays["best"] = [array.astype(dtype) for array in arrays["best"]]

    return with_arrays(change)


def replaced(old, new):
    """Replace a piece of the JSON inside the header; fail if the piece is missing."""

    def change(text):
        assert old in text
        return text.replace(old, new, 1)

    return lambda content: with_text(content, change)


# Files without a correct digest.
ALTERED = {
    "empty": (lambda c: b"", "is empty"),
    "three bytes": (lambda c: c[:3], "something else"),
    "header without its end": (lambda c: c[:40], "something else"),
    "zip": (lambda c: b"PK\x03\x04" + c, "a zip archive"),
    "page": (lambda c: b"\n <!DOCTYPE html>" + b"x" * 5000, "a web page"),
    "truncated": (lambda c: c[:-1000], "truncated or altered"),
    "something before it": (lambda c: b"#!/bin/sh\n" + c, ""),
    "something behind it": (lambda c: c + b"x", "truncated or altered"),
    "array altered": (lambda c: c[:-2] + bytes([c[-2] ^ 1]) + c[-1:], "truncated or altered"),
    "text altered": (lambda c: c.replace(b"small", b"smaLl", 1), "truncated or altered"),
    "space altered": (lambda c: c.replace(b'\\"seed\\": 0', b'\\"seed\\":\t0', 1), "truncated or altered"),
    "digest of zeros": (lambda c: DIGEST_INSIDE.sub(b"0" * 64, c, count=1), "truncated or altered"),
    "digest of 65 digits": (lambda c: DIGEST_INSIDE.sub(b"0" * 65, c, count=1), "something else"),
    "no digest": (lambda c: c.replace(b"sha256", b"sha257", 1), "no SHA-256 of `export`"),
    "size of 2 ** 63": (lambda c: bytes(7) + b"\x80" + c[8:], "truncated or altered"),
    "size of -1": (lambda c: b"\xff" * 8 + c[8:], "truncated or altered"),
    "size of 0": (lambda c: bytes(8) + c[8:], "something else"),
}
# Files with a correct digest.
CONTAINERS = {
    "size of 2 ** 63": (lambda c: join_file(*split_file(c), size=1 << 63), "the file's text has"),
    "size past the end": (lambda c: join_file(*split_file(c), size=1 << 20), NO_CHECKPOINT),
    "text without end": (with_metadata(more="x" * (3 << 20)), "the file's text has"),
    "header that is no JSON": (lambda c: join_file(f"none {DIGEST}"), NO_CHECKPOINT),
    "header that is a list": (lambda c: join_file(f'["{DIGEST}"]'), NO_CHECKPOINT),
    "header of arrays alone": (
        lambda c: join_file({DIGEST.replace("\\", ""): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}),
        NO_CHECKPOINT,
    ),
    "offsets that are long": (with_entry(data_offsets=[432, 452]), NO_CHECKPOINT),
    "offsets past the end": (with_entry(data_offsets=[0, 10**12]), NO_CHECKPOINT),
    "negative offset": (with_entry(data_offsets=[-4, 12]), NO_CHECKPOINT),
    "offsets the other way": (with_entry(data_offsets=[448, 432]), NO_CHECKPOINT),
    "two arrays in one place": (with_overlap, NO_CHECKPOINT),
    "array named twice": (with_twice("best/0001"), NO_CHECKPOINT),
    "setting named twice": (replaced('"seed": 0', '"seed": 0, "seed": 0'), NO_CHECKPOINT),
    "shape without end": (with_entry(shape=[10**9, 10**9, 10**9]), NO_CHECKPOINT),
    "dtype that is none": (with_entry(dtype="X32"), NO_CHECKPOINT),
    "dtype without NumPy's": (with_entry(dtype="BF16", shape=[2, 4]), ""),
    "float64": (with_type(np.float64), "weights (best)"),
    "int32": (with_type(np.int32), "weights (best)"),
    "another shape": (with_entry(shape=[2, 2]), "weights (best)"),
    "array too few": (with_arrays(lambda arrays: arrays["best"].pop()), "weights (best)"),
    "array too many": (with_arrays(lambda arrays: arrays["best"].append(np.zeros(1, np.float32))), "weights (best)"),
    "weights that are no numbers": (with_arrays(lambda arrays: arrays["best"][0].fill(np.nan)), "NaN or infinity"),
    "no arrays": (with_arrays(lambda arrays: arrays.clear()), "nothing; expected those of best"),
    "12,000 arrays": (
        with_arrays(lambda arrays: arrays.update(best=[np.zeros(0, np.float32)] * 12_000)),
        "weights (best)",
    ),
    "array without a group": (renamed("best/0001", "best"), NO_CHECKPOINT),
    "array with a path": (renamed("best/0001", "../best/0001"), NO_CHECKPOINT),
    "array left out": (renamed("best/0001", "best/0099"), NO_CHECKPOINT),
    "array with another number": (renamed("best/0001", "best/00001"), NO_CHECKPOINT),
    "unknown group": (with_arrays(lambda arrays: arrays.update(more=[np.zeros(1)])), "arrays of best, more"),
    "group of another kind": (with_arrays(lambda arrays: arrays.update(model=arrays["best"])), "best, model"),
    "run without its state": (with_checkpoint(kind="run"), "expected those of best, model, optimizer"),
}
METADATA = {
    "no text": (lambda c: with_text(c, lambda text: DIGEST.replace("\\", "")), NO_CHECKPOINT),
    "text that is a list": (lambda c: with_text(c, lambda text: f"[{text}]"), "of format None"),
    "later format": (replaced('"format": 2, "kind"', '"format": 3, "kind"'), "of format 3"),
    "format of 0.1.0": (replaced('"format": 2, "kind"', '"kind"'), "of format 1"),
    "later format of the record": (with_record(format=3), "of format 3"),
    "fit": (with_checkpoint(kind="fit"), "of kind 'fit'"),
    "unknown kind": (with_checkpoint(kind="code"), "its kind is 'code'"),
    "kind that is a list": (with_checkpoint(kind=["shared"]), NO_CHECKPOINT),
    "kind without end": (with_checkpoint(kind="x" * 100_000), NO_CHECKPOINT),
    "epoch that is a text": (with_checkpoint(epoch="2"), NO_CHECKPOINT),
    "epoch that is true": (with_checkpoint(epoch=True), NO_CHECKPOINT),
    "epoch without end": (with_checkpoint(epoch=10**12), "not that of 1000000000000 epochs"),
    "epoch below 0": (with_checkpoint(epoch=-1), "not that of -1 epochs"),
    "another epoch than the history's": (with_checkpoint(epoch=1), "not that of 1 epochs"),
    "metadata that is a list": (replaced('"metadata": {', '"metadata": [], "more": {'), NO_CHECKPOINT),
    "nested without end": (
        lambda c: with_text(c, lambda text: text[:-2] + ', "more": ' + "[" * 200_000 + "}}"),
        NO_CHECKPOINT,
    ),
    "not a number": (replaced('"complete": true', '"complete": NaN'), NO_CHECKPOINT),
    "number of 5,000 digits": (replaced('"seed": 0', '"seed": ' + "9" * 5000), NO_CHECKPOINT),
    "no record": (lambda c: altered(c, lambda checkpoint: checkpoint.metadata.pop("run")), NO_RUN),
    "record that is a list": (with_metadata(run=[]), "of format None"),
    "record without a seed": (lambda c: altered(c, lambda ch: ch.metadata["run"].pop("seed")), NO_RUN),
    "no history": (with_metadata(history=None), NO_RUN),
    "callbacks that are none": (with_metadata(callbacks={}), "'callbacks' is {}; expected list"),
    "reason that owns the terminal": (with_metadata(reason="\x1b[31m"), "'reason' is '\\x1b[31m'"),
    "reason without end": (with_metadata(reason="x" * 100_000), "one line of at most 1000"),
    "complete that is none": (with_metadata(complete="yes"), "'complete' is 'yes'; expected True or False"),
}
RECORDS = {
    "seed that is a path": (with_record(seed="../../0"), "seed is '../../0'"),
    "seed that is huge": (with_record(seed=2**63), "seed is 9223372036854775808"),
    "seed below 0": (with_record(seed=-1), "seed is -1"),
    "seed that is true": (with_record(seed=True), "seed is True"),
    "name that leaves the folder": (with_settings(name=".."), "name is '..'"),
    "name that is a path": (with_settings(name="a/b"), "name is 'a/b'"),
    "name that is an absolute path": (with_settings(name="/tmp/a"), "name is '/tmp/a'"),
    "name with a break": (with_settings(name="a\nb"), "name is 'a\\nb'"),
    "name without end": (with_settings(name="x" * 100_000), "name is"),
    "name of another experiment": (with_settings(name="06_final"), "named 06_final, with other settings"),
    "unknown setting": (with_settings(layers=10), "unknown to this version"),
    "experiment that is a list": (with_record(experiment=[1]), NO_RUN),
    "unknown optimizer": (with_settings(optimizer={"kind": "os.system"}), "unknown to this version"),
    "network larger than the file": (with_settings(filters=[9000, 9000, 8]), "weights (best)"),
    "kernels without end": (with_settings(kernel_sizes=[1] * 100_000), "expected 1 to 100 values"),
    "layers without end": (
        with_settings(kernel_sizes=[1] * 100, filters=[1] * 100),
        "10000 convolutions; expected 100 at most",
    ),
    "filters without end": (with_settings(filters=[10**4000] * 3), ""),
    "filters of text": (with_settings(filters=["x" * 100_000]), "filters is"),
    "epochs that are true": (with_settings(epochs=True), "epochs is True"),
    "fewer epochs than the history": (with_settings(epochs=1), "expected 1 at most"),
    "more validation images than can be drawn": (with_record(val_size=1_000_001), "val_size is 1000001; expected"),
    "more images held out than can be drawn": (with_record(holdout=1_000_001), "holdout is 1000001; expected"),
    "more images than can be drawn": (with_record(train_size=1_000_001), "train_size is 1000001; expected"),
    "no images": (with_record(train_size=0), "train_size is 0"),
    "size below 0": (with_record(train_size=-1), "train_size is -1"),
    "holdout of text": (with_record(holdout="1"), "holdout is '1'"),
    "data elsewhere": (with_record(data="/etc"), "data is '/etc'"),
    "data in a list": (with_record(data=["cifar10"]), "data is"),
    "precision that is none": (with_record(precision="float8"), "precision is 'float8'"),
    "digest that is none": (with_record(data_sha256="x"), "data_sha256 is 'x'"),
    "starts that are a dict": (with_record(starts={"time": 1}), NO_RUN),
    "start with a path": (with_start(path="/etc"), "unknown to this version"),
    "time that is a number": (with_start(time=7), NO_RUN),
    "time with Markdown": (with_start(time="[now](https://evil.example)"), "expected letters"),
    "first epoch of text": (with_start(first_epoch="1"), NO_RUN),
    "execution of text": (with_start(execution={"steps_per_call": 1, "xla": "yes"}), "xla is 'yes'"),
    "steps without end": (with_start(execution={"steps_per_call": 10**9, "xla": True}), "steps_per_call is 1000000000"),
    "execution in part": (with_start(execution={"steps_per_call": 1}), "its execution lacks ['xla']"),
    "device that calls home": (with_start(device="![T4](https://evil.example/a.png)"), "expected letters"),
    "device that is a link": (with_start(device="see https://evil.example/a"), "expected letters"),
    "device that is an address": (with_start(device="WWW.evil.example or me@evil.example"), "expected letters"),
    "device that is HTML": (with_start(device="<img src=x>"), "expected letters"),
    "device that owns the terminal": (with_start(device="\x1b]0;owned\x07"), "expected letters"),
    "device without end": (with_start(device="x" * 100_000), "expected letters"),
    "version that owns the terminal": (with_start(versions={"keras": "\x1b[2J"}), NO_RUN),
    "versions in a list": (with_start(versions=["keras"]), NO_RUN),
    "commit that owns the terminal": (with_start(commit="\x1b[2J"), NO_RUN),
}
RECORDS |= {
    f"{name} that is null": (with_record(**{name: None}), f"{name} is None")
    for name in ("seed", "data", "data_sha256", "train_size", "val_size", "holdout", "precision")
}
RECORDS |= {
    f"{name} that is null": (with_start(**{name: None}), f"{name} is None")
    for name in ("time", "first_epoch", "device", "versions")
}
RECORDS |= {
    f"{name} that is null": (with_settings(**{name: None}), f"{name} is None")
    for name in ("name", "filters", "dropout", "batch_size", "epochs", "optimizer", "schedule")
}
HISTORIES = {
    "accuracy past 1": (with_history(val_accuracy=[0.5, 2]), "accuracies from 0 to 1"),
    "accuracy below 0": (with_history(accuracy=[0.5, -0.1]), "accuracies from 0 to 1"),
    "accuracy that is true": (with_history(accuracy=[0.5, True]), "finite numbers"),
    "loss of text": (with_history(loss=["0.5", "0.5"]), "finite numbers"),
    "loss that is a list": (with_history(loss=[[], []]), "finite numbers"),
    "loss past float32": (with_history(loss=[1e39, 1]), "finite numbers"),
    "loss of 400 digits": (with_history(loss=[10**400, 1]), "finite numbers"),
    "infinite loss": (replaced('"loss": [', '"loss": [1e999, '), ""),
    "loss that is not a number": (replaced('"val_loss": [', '"val_loss": [NaN, '), NO_CHECKPOINT),
    "epochs from 2": (with_history(epoch=[2, 3]), "counted from 1"),
    "epochs that are not integers": (with_history(epoch=[1.0, 2.0]), "counted from 1"),
    "epochs that are true": (with_history(epoch=[True, 2]), "counted from 1"),
    "epochs of text": (with_history(epoch="12"), NO_RUN),
    "rows that are missing": (with_history(seconds=[1.0]), "a row for each"),
    "column that is unknown": (with_history(more=[1, 2]), NO_RUN),
    "column that is missing": (lambda c: altered(c, lambda ch: ch.metadata["history"].pop("seconds")), NO_RUN),
    "no epoch": (
        lambda c: altered(
            c,
            lambda ch: vars(ch).update(epoch=0) or ch.metadata.update(history={n: [] for n in ch.metadata["history"]}),
        ),
        "not that of 0 epochs",
    ),
}
HOSTILE = {
    f"{group}: {kind}": made
    for group, kinds in (
        ("altered", ALTERED),
        ("container", CONTAINERS),
        ("metadata", METADATA),
        ("record", RECORDS),
        ("history", HISTORIES),
    )
    for kind, made in kinds.items()
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_file_is_one_readable_error_and_leaves_no_file(shared, tmp_path, offered, kind):
    change, words = HOSTILE[kind]
    content = change(shared)
    assert content != shared
    check_refused(tmp_path / "here" / "fetched", offered(content), words)


def test_checkpoint_from_a_runs_folder_is_refused(trained, tmp_path, offered):
    content = checkpoint_files(trained / "checkpoints")[0].read_bytes()
    check_refused(tmp_path / "here" / "fetched", offered(content), "no SHA-256 of `export`")


LARGE = [
    "container: size of 2 ** 63",
    "container: text without end",
    "container: shape without end",
    "container: 12,000 arrays",
    "metadata: epoch without end",
    "metadata: nested without end",
    "record: network larger than the file",
    "record: kernels without end",
    "record: layers without end",
    "record: filters without end",
]


@pytest.mark.parametrize("kind", LARGE)
def test_hostile_file_takes_little_memory(shared, tmp_path, offered, kind):
    content = HOSTILE[kind][0](shared)
    fetch(offered(shared), folder=tmp_path / "warm", quiet=True)  # So that all imports are done before the measurement.
    url = offered(content)
    tracemalloc.start()
    try:
        check_refused(tmp_path / "here" / "fetched", url)
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()

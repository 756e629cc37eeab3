"""A measurement in words: the paragraph that is sent, and the rows of the table of those that came in."""

import re
from pathlib import Path

from colabcnn.errors import Error
from colabcnn.experiments.experiment import TRAIN_SIZE
from colabcnn.store.files import expand
from colabcnn.store.measurements import FOLDER, Measurement, read_measurement
from colabcnn.store.run_list import found_in

COLUMNS = (
    "device",
    "with",
    "seconds per epoch of 50,000",
    "in plain steps",
    "do both agree",
    "share of the peak",
    "peak memory",
    "before the first epoch",
    "interrupted and resumed",
    "what fell back",
    "from",
)


def measured_rows(*folders: str | Path | None) -> list[tuple[str, ...]]:
    """Return a row of `COLUMNS` for each file in the folders' `measured`; of one that cannot be read, the reason.

    What came from somebody else has its Markdown escaped; HTML and the table's own `|` are left to whoever joins cells.
    """
    paths = {
        path.name: path for folder in filter(None, folders) for path in found_in(expand(folder) / FOLDER, "*.json")
    }
    rows = []
    for name in sorted(paths):
        try:
            rows.append(tuple(map(_escaped, _row(read_measurement(paths[name])))))
        except Error as error:
            rows.append((_escaped(f"{error}."), *("",) * (len(COLUMNS) - 1)))
    return rows


def in_words(measurement: Measurement) -> str:
    """Return the paragraph that goes with a measured file."""
    one, epochs = measurement, len(measurement.auto.seconds)
    versions = ", ".join(f"{name} {version}" for name, version in one.versions.items())
    plain = one.plain_failed or f"{_seconds(one, one.plain)} s an epoch"
    sentences = [
        f"Measured: {one.experiment} on {one.device}, Keras on {one.backend}, {one.precision}, "
        f"{one.auto.steps.in_words()}",
        f"An epoch of {TRAIN_SIZE:,} images with its validation takes {_seconds(one, one.auto)} s: {epochs} epochs "
        f"were measured, with {one.train_size:,} training and {one.val_size:,} validation images of {one.data}",
        f"That is {_share(one)} of a large matrix product",
        f"In plain steps: {plain}",
        f"Do both agree: {_agreement(one)}",
        f"Peak memory: {_memory(one)}",
        f"Before the first epoch, to read, build and compile: {one.auto.overhead_seconds():.0f} s",
        f"Interrupted and resumed: {_interruption(one)}",
        f"What fell back: {one.auto.refused or 'nothing'}",
        f"Versions: {versions}, commit {one.commit or 'not known'}, {one.platform}",
        f"All of it took {one.minutes:.1f} minutes on {one.date}. Sent by {one.sent_by or 'somebody'}",
    ]
    return " ".join(f"{sentence.removesuffix('.')}." for sentence in sentences)


def _row(one):
    package = one.versions.get(one.backend, "")
    return (
        one.device,
        f"{one.backend} {package}, {one.precision}, {one.auto.steps.in_words()}",
        f"{_seconds(one, one.auto)} (with {one.train_size:,})",
        one.plain_failed or _seconds(one, one.plain),
        _agreement(one),
        _share(one),
        _memory(one),
        f"{one.auto.overhead_seconds():.0f} s",
        _interruption(one),
        one.auto.refused or "nothing",
        f"sent by {one.sent_by or 'somebody'}, {one.date}",
    )


def _seconds(one, training):
    return "not measured" if training is None else _rounded(one.full_epoch_seconds(training))


def _rounded(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _share(one):
    return f"{100 * one.share_of_peak():.2g} % of the {one.matrix_gflops:,.0f} GFLOP/s"


def _memory(one):
    if one.peak_memory is None:
        return "not known"
    return f"{one.peak_memory / 1e6:,.0f} MB of the {one.memory_of}"


def _agreement(one):
    if one.plain is None:
        return "not known"
    return f"{'yes' if one.agrees(one.plain) else 'NO'}, {_differences(one, one.plain)}"


def _differences(one, training):
    loss, accuracy = one.auto.differences(training)
    words = f"training loss differs by a share of up to {loss:.4f}, accuracy by up to {accuracy:.4f}"
    return words if one.agrees(training) else f"{words}: MORE than {one.tolerance():.4f}"


def _interruption(one):
    how = one.interruption
    by = f"{how.by} in epoch 2{f' ({how.why_not_killed})' if how.why_not_killed else ''}"
    if one.resumed is None:
        return f"{by}, did NOT go through: {how.failed or 'no reason is given'}"
    if how.first_epoch < 2:
        return f"{by}, did NOT continue: it began again at epoch 1"
    same = "bit for bit the same run" if how.bit_for_bit else _differences(one, one.resumed)
    return f"{by}, continued at epoch {how.first_epoch}, {same}"


def _escaped(text):
    """Return a text without what Markdown would act upon: a link, a picture, code, a formula."""
    return re.sub(r"([\\`*\[\]$])", r"\\\1", text)

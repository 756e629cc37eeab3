"""The pages of the benchmarks: their names, first lines, table of pairs, and missing results."""

import re

from comparisons import val_size_of


def page_name(device, precision, suffix=""):
    """Return the name of a page's file: lower-case letters, digits and single hyphens."""
    device, *suffixes = (re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in (device, precision, suffix))
    return "-".join([device[:80] or "device", *filter(None, suffixes)]) + ".md"


def missing(row):
    """Return the text in place of missing values of a comparison, or "" if there are values."""
    if "failed" in row:
        return f"not yet measured: {row['failed']}"
    return "" if row else "not yet measured"


def heading(title, benchmark, method, rows, options):
    """Return a page's first lines, which describe how it was made.

    Args:
        title: of the page, before the device.
        benchmark: the name of its script.
        method: sentences about the page's tables.
        rows: the results of the comparisons, by name.
        options: as parsed.
    """
    device = rows["device"]
    data = "" if options.data == "synthetic" else " DATA"
    within = f" --seconds {options.seconds:g}" if options.seconds else ""
    versions = ", ".join(f"{name} {version}" for name, version in device["versions"].items())
    flag = f", {'with' if device['bfloat16'] else 'without'} bfloat16 instructions" if device["cpu"] else ""
    made = (
        f"`python benchmarks/{benchmark}.py{data}{within}` at {device['commit']}. {versions}; "
        f"{device['platform']}{flag}. `auto` is {device['precision']} and {device['execution']}. {method}"
    )
    return [f"# {title} {device['device']}", "", made]


def of_pairs(options):
    """Return how the table of the pairs was measured, as a sentence."""
    return (
        f"Medians of {'up to ' if options.seconds else ''}{options.pairs} interleaved pairs, in batches of 128; an "
        f"epoch is {options.images:,} training images and {val_size_of(options.images):,} to validate on."
    )


def table_of_pairs(columns, rows):
    """Return the table of the comparisons, with the missing ones; `columns` names its first four columns."""
    table = [(*columns, "ratio", "the pairs' ratios"), ("---",) * 6]
    table += [cells_of(name, row) for name, row in rows.items() if "ratio" in row or missing(row)]
    return [f"| {' | '.join(cells)} |" for cells in table]


def cells_of(name, row):
    """Return a comparison's cells: both precisions and speeds, the median ratio and the pairs' ratios."""
    if missing(row):
        return name, "", missing(row), "", "", ""
    pairs = " ".join(f"{ratio:.2f}" for ratio in row["ratios"])
    precisions = " / ".join(row.get("precisions", ()))
    return name, precisions, f"{row['first']:.0f}", f"{row['second']:.0f}", f"**{row['ratio']:.2f}**", pairs

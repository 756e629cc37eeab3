"""Write the results of the runs in `results/` into the pages' marked blocks: python tools/update_docs.py [--figures]

A block is between `<!-- begin NAME -->` and `<!-- end NAME -->`; its text is generated, so edit only the rest of a
page. `--check` writes nothing and fails if a page is out of date. `--figures` draws results/figures again.
"""

import argparse
import sys
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tools")]

import ingredients  # noqa: E402
import orderings  # noqa: E402
import result_tables as tables  # noqa: E402
from colabcnn import Error  # noqa: E402
from colabcnn.viewing.figures import save_figures  # noqa: E402
from colabcnn.viewing.table import summarize  # noqa: E402

TRIALS = ("20_cutout_12_shift_4", "20_cutout_8_dropout_01")
"""Runs of results/tried for a recipe that is longer than `08_in_minutes`."""


def main() -> None:
    """Update the pages, or check them."""
    options = _parse()
    try:
        out_of_date = update(ROOT, check=options.check)
        if options.figures:
            for path in save_figures(ROOT / "results", ROOT / "results" / "figures"):
                print(path.relative_to(ROOT))
    except Error as error:
        sys.exit(f"error: {error}")
    report(out_of_date, options.check, "tools/update_docs.py")


def report(paths: Collection[str], check: bool, script: str) -> None:
    """Print the paths of generated files that were out of date; after a check, exit with an error if there are any."""
    for path in paths:
        print(f"{path} {'is out of date' if check else 'is updated'}")
    if check and paths:
        sys.exit(f"Run python {script}.")


def update(root: Path, check: bool = False) -> list[str]:
    """Write the blocks of all pages from the runs in `results/`.

    Args:
        root: the project's folder.
        check: write nothing.

    Returns:
        The paths, from `root`, of the pages that were out of date.

    Raises:
        Error: a run is not valid, or a page's markers are not those of its blocks.
    """
    changed = []
    for path, blocks in generate(root / "results").items():
        page = (root / path).read_text(encoding="utf-8")
        updated = fill(page, blocks, path)
        if updated == page:
            continue
        changed.append(path)
        if not check:
            (root / path).write_text(updated, encoding="utf-8")
    return changed


def generate(results: Path) -> dict[str, dict[str, str]]:
    """Return the blocks by name, for each page by its path.

    Raises:
        Error: a run is not valid, as for `read_results`.
    """
    recipe = ingredients.RECIPE.name
    in_words = {f"08_without_{name}": words for name, words in ingredients.IN_WORDS.items()}
    runs_of = tables.read_results(results)
    shortest = replace(ingredients.RECIPE, name="08_in_7_epochs", epochs=7)
    tried = tables.read_results(results / "tried", {tables.FIRST_TRY: None, shortest.name: shortest})
    trials = tables.read_results(results / "tried", dict.fromkeys(TRIALS), held_out=True)
    by_length = {10: runs_of[recipe], 8: runs_of["08_in_8_epochs"], 7: tried[shortest.name]}
    without = {name: experiment for name, experiment in ingredients.EXPERIMENTS.items() if name != recipe}
    longer = [*(run for name in TRIALS for run in trials[name]), *runs_of["09_as_far_as_it_goes"]]
    of_ingredients = {recipe: runs_of[recipe], **tables.read_results(results / "ingredients", without)}
    front_page = {"summary": tables.summary_table(runs_of), "recipes": tables.recipes_table(runs_of)}
    return {
        "README.md": front_page,
        "README.ja.md": front_page,
        "docs/results.md": {
            "experiments": tables.experiments_table(),
            "complete summary": tables.complete_summary_table(runs_of),
            "orderings": orderings.orderings_table(runs_of),
            "final": tables.final_table(runs_of),
            "seeds": summarize(results).seeds or "No experiment has two complete runs yet.",
        },
        "results/README.md": {
            "training": orderings.training_table(runs_of),
            "longer runs": tables.longer_runs_table(longer),
            "first try": tables.first_try_table(tried, runs_of),
            "fewest epochs": tables.fewest_epochs_table(by_length),
            "ingredients": tables.ingredients_table(of_ingredients, recipe, in_words),
            "devices": tables.devices_table(runs_of),
            "resumed": tables.resumed_sentences(runs_of),
            "weights": tables.weights_sentences(runs_of),
            "measured": summarize(results).measured or "**No file has come in yet.**",
        },
    }


def fill(page: str, blocks: Mapping[str, str], path: str) -> str:
    """Return a page with its blocks replaced.

    Args:
        page: the page's text.
        blocks: the text of each block, by name.
        path: the page's, for the message.

    Raises:
        Error: a block's markers are missing or repeated.
    """
    for name, text in blocks.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->\n"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed or begin in rest or end in before + after:
            raise Error(
                f"{path} has no block {name!r}, or two; put {begin.strip()} and {end.strip()} there, each on a line."
            )
        # Markdown needs the empty lines around a table or a list.
        page = f"{before}{begin}\n{text}\n\n{end}{after}"
    return page


def _parse():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is out of date")
    parser.add_argument("--figures", action="store_true", help="draw results/figures again, too")
    return parser.parse_args()


if __name__ == "__main__":
    main()

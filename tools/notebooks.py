"""Write the notebooks from their texts in tools/notebook_texts: python tools/notebooks.py [--check]

`experiment.md` is the template of the experiments' notebooks; `<experiment>.md` has the texts of one experiment. Every
other file is a complete notebook, except `common.md`: texts that several notebooks use. `<!-- cell: ID -->` begins a
Markdown cell, `<!-- code: ID -->` a code cell, `<!-- text: NAME -->` a text, which `{{NAME}}` inserts. The other
placeholders are values of `notebook_values.py`, from the experiments' fields and the runs in `results/`.

`--check` writes nothing and fails if a notebook is out of date.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import notebook_values  # noqa: E402
import result_tables as tables  # noqa: E402
import update_docs  # noqa: E402
from colabcnn import Error  # noqa: E402
from colabcnn.experiments.catalog import EXPERIMENTS, find_experiment  # noqa: E402
from colabcnn.store.files import write_atomically  # noqa: E402
from stamp_address import read_address  # noqa: E402

TEXTS = Path("tools", "notebook_texts")
MARK = re.compile(r"^<!-- (cell|code|text): ([\w-]+) -->\n", re.MULTILINE)
PLACEHOLDER = re.compile(r"\{\{([\w.-]+)\}\}")
CELL_METADATA = {"setup": {"cellView": "form"}, "parameters": {"cellView": "form", "tags": ["parameters"]}}
NEW_CODE_CELL = {"cell_type": "code", "execution_count": None, "outputs": []}
METADATA = {
    "accelerator": "GPU",
    "colab": {"gpuType": "T4", "provenance": []},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def main() -> None:
    """Write the notebooks, or check them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a notebook is out of date")
    options = parser.parse_args()
    try:
        changed = write(ROOT, check=options.check)
    except Error as error:
        sys.exit(f"error: {error}")
    update_docs.report([str(path.relative_to(ROOT)) for path in changed], options.check, "tools/notebooks.py")


def write(root: str | Path, check: bool = False) -> list[Path]:
    """Write the notebooks of a checkout.

    Args:
        root: the checkout, with `pyproject.toml`, `results/` and the texts.
        check: write nothing.

    Returns:
        The paths of the notebooks that were out of date.

    Raises:
        Error: a text has an unknown placeholder or none of the marks; a run in `results/` is not valid.
    """
    changed = []
    for name, cells in generate(Path(root)).items():
        path = Path(root, "notebooks", f"{name}.ipynb")
        notebook = {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
        text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        changed.append(path)
        if not check:
            write_atomically(path, text)
    return changed


def generate(root: Path) -> dict[str, list[dict]]:
    """Return the cells of each notebook, by its name."""
    files = {path.stem: sections(path) for path in sorted((root / TEXTS).glob("*.md"))}
    template, common = files.pop("experiment"), _texts(files.pop("common"))
    common |= {"ingredients": update_docs.generate(root / "results")["results/README.md"]["ingredients"]}
    runs_of, own = tables.read_results(root / "results"), {name: _texts(parts) for name, parts in files.items()}
    common |= {"series": _series(files, own), "shipped_weights": tables.weights_sentences(runs_of)}
    common |= {"final_length": notebook_values.numbers(EXPERIMENTS["06_final"], runs_of)["length"]}
    notebooks = {}
    for name, parts in files.items():
        values = common | own[name] | _address(root, name)
        if name in EXPERIMENTS:
            parts, experiment = template, EXPERIMENTS[name]
            base = None if values["base"] == "none" else find_experiment(values["base"])
            values |= notebook_values.values_of(experiment, base, runs_of)
            values["more_epochs"] = values[f"more_epochs_{type(experiment.schedule).__name__}"]
        notebooks[name] = [_cell(kind, key, fill(text, values, name)) for kind, key, text in parts if kind != "text"]
    return notebooks


def sections(path: Path) -> list[tuple[str, str, str]]:
    """Return `(kind, name, text)` of each marked part of a file; kind is "cell", "code" or "text".

    Raises:
        Error: the file does not begin with a mark, or a code cell is not one fenced block.
    """
    before, *parts = MARK.split(path.read_text(encoding="utf-8"))
    if before.strip() or not parts:
        raise Error(f"{path} begins with {before[:40]!r}; expected <!-- cell: ID --> or another mark.")
    found = []
    for kind, name, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        text = text.strip()
        if kind == "code":
            if not (text.startswith("```python\n") and text.endswith("\n```")):
                raise Error(f"{path}: the code of {name} is not between ```python and ```.")
            text = text.removeprefix("```python\n").removesuffix("\n```")
        found.append((kind, name, text))
    return found


def fill(text: str, values: Mapping[str, str], where: str) -> str:
    """Return a text with its placeholders replaced, and those in what replaces them.

    Raises:
        Error: a placeholder has no value.
    """

    def value(match):
        if match[1] not in values:
            raise Error(f"{where} has the placeholder {match[0]}, which has no value; correct it, or add the text.")
        return fill(values[match[1]], values, where)

    return PLACEHOLDER.sub(value, text)


def _texts(parts):
    return {name: text for kind, name, text in parts if kind == "text"}


def _series(files, own):
    """Return the table of the notebooks that have a number, with the title of each."""
    titles = {name: own[name].get("title") or parts[0][2].partition("\n")[0] for name, parts in files.items()}
    rows = [
        f"| [{name}]({name}.ipynb) | {title.partition(': ')[2]} |" for name, title in titles.items() if ": " in title
    ]
    return "\n".join(["| notebook | what it shows |", "| --- | --- |", *rows])


def _address(root, name):
    """Return what depends on the copy's address: a notebook's badge and its setup cell."""
    address = read_address(root)
    return {"badge": address.badge(f"notebooks/{name}.ipynb"), "setup": address.setup_cell()}


def _cell(kind, name, text):
    cell = {"id": name, "metadata": CELL_METADATA.get(name, {}), "source": text.splitlines(keepends=True)}
    return cell | ({"cell_type": "markdown"} if kind == "cell" else NEW_CODE_CELL)


if __name__ == "__main__":
    main()

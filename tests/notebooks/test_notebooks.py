"""The notebooks are short and alike, contain no outputs, and run from top to bottom."""

import importlib.util
import re
import shutil

import nbformat
import pytest

import colabcnn
from colabcnn.experiments.catalog import find_experiment
from colabcnn.store.history import read_history, write_history
from colabcnn.store.measurements import read_measurement
from support.file_server import FileServer
from support.notebook_runs import NAMES, ROOT, execute, make_project, read, sources
from support.runs import history_of

pytest.importorskip("papermill", reason="Papermill is not installed: pip install papermill")

pytestmark = [pytest.mark.versions, pytest.mark.notebook]

EXPERIMENTS = [*colabcnn.ABLATIONS, *colabcnn.RECIPES]
*_, RECIPE = colabcnn.RECIPES
ON_TENSORFLOW = bool(importlib.util.find_spec("tensorflow"))
# Of the experiments, which have the same code: one with augmentation, one without, and a recipe.
EXECUTED = [name for name in NAMES if name not in EXPERIMENTS or name in ("01_descending_kernels", "06_final", RECIPE)]
EXECUTED = EXECUTED if ON_TENSORFLOW else ["06_final"]  # JAX takes almost a minute to compile each network on a CPU.
DEFAULTS = {
    "EPOCHS": 700,
    "DATA": "cifar10",
    "TRAIN_SIZE": 50000,
    "VAL_SIZE": 10000,
    "HOLDOUT": 0,
    "SEED": 0,
    "HOURS": 11.5,
    "DRIVE_FOLDER": "/content/drive/MyDrive/colabcnn",
    "ALLOW_LONG": False,
    "SHARE": False,
}
FORMS = {"setup": {"cellView": "form"}, "parameters": {"cellView": "form", "tags": ["parameters"]}}
JAPANESE = re.compile(r"[\u3040-\u30ff]")
WIDGET = "application/vnd.jupyter.widget-view+json"


def test_only_the_listed_notebooks_exist():
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_notebook_is_valid_and_has_no_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"accelerator", "colab", "kernelspec", "language_info"}
    assert notebook.metadata.accelerator == "GPU"
    for cell in notebook.cells:
        assert cell.metadata == FORMS.get(cell["id"], {})
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize("name", NAMES)
def test_code_cells_are_short_and_explained(name):
    notebook = read(name)
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown", cell["id"]
            assert len(cell.source.splitlines()) <= (30 if cell["id"] == "setup" else 15), cell["id"]
            assert not re.search(r"^\s*(def|class|for|while) ", cell.source, re.MULTILINE), cell["id"]


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_forms_that_papermill_finds(name):
    (cell,) = [cell for cell in read(name).cells if "parameters" in cell.metadata.get("tags", [])]
    assert all("# @param" in line for line in cell.source.splitlines())
    values = {}
    exec(cell.source, values)
    if name in EXPERIMENTS:
        expected = {"EXPERIMENT": name, **DEFAULTS, "EPOCHS": find_experiment(name).epochs}
        assert {key: value for key, value in values.items() if key.isupper()} == expected
    else:
        assert ("DRIVE_FOLDER" in values) == (name != "13_measure")  # 13_measure needs no Drive.


def test_notebooks_of_experiments_have_the_same_cells_and_code():
    first = read(EXPERIMENTS[0])
    for name in EXPERIMENTS[1:]:
        notebook = read(name)
        assert [cell["id"] for cell in notebook.cells] == [cell["id"] for cell in first.cells]
        for mine, theirs in zip(notebook.cells, first.cells, strict=True):
            assert mine.cell_type == theirs.cell_type
            assert mine.cell_type == "markdown" or mine["id"] == "parameters" or mine.source == theirs.source


@pytest.mark.parametrize("name", NAMES)
def test_title_and_main_steps_have_a_japanese_text(name):
    texts = sources(read(name))
    steps = {"title", "about-setup", "about-parameters", "about-run", "more"} & set(texts)
    assert steps >= {"title", "about-setup", "about-parameters"}
    assert [step for step in sorted(steps) if not JAPANESE.search(texts[step])] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_to_a_notebook_and_back_to_the_first(name):
    linked = set(re.findall(r"\]\((\w+)\.ipynb\)", str(sources(read(name)))))
    assert linked <= set(NAMES)
    assert linked == set(NAMES) - {name} if name == NAMES[0] else NAMES[0] in linked


def test_each_title_cell_has_the_articles_values():
    for name, experiment in colabcnn.ABLATIONS.items():
        reported = experiment.reported
        for value in (reported.val_accuracy, reported.best_val_accuracy, reported.best_epoch):
            assert value is None or f"{value:g}" in sources(read(name))["title"], (name, value)


def kinds(outputs):
    return [kind for output in outputs for kind in output.get("data", {"text": 0})]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.mark.colab
@pytest.mark.parametrize("name", EXECUTED)
def test_notebook_runs_from_top_to_bottom(project, tmp_path, name):
    share = name in ("10_compare_runs", "11_your_own")
    outputs = execute(project, name, tmp_path, **({"SHARE": True} if share else {}))
    assert "colabcnn.Error" not in str(outputs)
    assert not [output for cell in outputs.values() for output in cell if output["output_type"] == "error"]
    assert f"colabcnn {colabcnn.__version__}" in str(outputs["setup"])
    if name != "13_measure":
        assert WIDGET in kinds(outputs["explore"])
    # Without a run of one's own, the comparison has none to look inside.
    pictures = {"images", "augmentation", "trained", "picture"}
    pictures |= {"confusion", "mistakes"} if name != "10_compare_runs" else set()
    for cell in pictures & set(outputs):
        assert "image/png" in kinds(outputs[cell]), cell
    if "run" in outputs:
        assert kinds(outputs["run"]).count("text/html") == 3  # The data, the figure, and a picture without scripts.
        assert "epoch 1/1" in str(outputs["run"])
    shown = {cell for cell, parts in outputs.items() if any(part["output_type"] == "execute_result" for part in parts)}
    assert not shown & {"run", "sweep", "fetch"}  # A value that nobody asked for, such as a complete history.
    if name in EXPERIMENTS:
        assert read_history(project / "drive" / name / "seed-0" / "history.csv")["epoch"] == [1]
        assert outputs["share"] == []
        assert not list(project.glob(f"*/**/{name}/**/curves.html"))
    if name == "10_compare_runs":
        assert (project / "drive" / "curves.html").exists()
    if name == "11_your_own":
        assert (project / "drive" / "my_variant" / "seed-0" / "curves.html").exists()
        assert list(project.glob("drive/my_variant/seed-0/*.safetensors"))
    if name == "00_start_here":
        assert "no run in" in str(outputs["drive"])
        again = execute(project, name, tmp_path)
        assert "| `start_here_06_final_128` | 0 | 1 | 0 |" in str(again["drive"])
    if name == "12_many_seeds":
        assert "08_quarter/seed-1: finished, epoch 1 of 1" in str(outputs["sweep"])
        assert len(list(project.glob("drive/08_quarter/seed-*/model.keras"))) == 2
        row = "| `08_quarter, synthetic images, 128 training images, 50 validation images` | 1 | 2 | "
        assert row in "".join(outputs["table"][0]["data"]["text/markdown"])
        assert "image/png" in kinds(outputs["figure"])
    if name == "13_measure":
        (path,) = (project / "notebooks" / "measured").glob("*.json")
        assert read_measurement(path).interruption.by == "SIGKILL"
        assert path.name in str(outputs["send"])
        assert "sent by somebody" in "".join(outputs["table"][0]["data"]["text/markdown"])
    if name == "10_compare_runs":
        assert "06_final" in str(outputs["table"])
        assert "text/html" in kinds(outputs["explore"])


@pytest.mark.skipif(not ON_TENSORFLOW, reason="one notebook is executed on JAX")
@pytest.mark.colab
def test_cells_below_a_refused_run_show_the_shipped_run(tmp_path):
    outputs = execute(make_project(tmp_path), "06_final", tmp_path, TRAIN_SIZE=0)
    assert "colabcnn.Error: train_size is 0" in str(outputs["run"])
    assert "image/png" in kinds(outputs["shipped"])
    assert WIDGET in kinds(outputs["explore"])
    for cell in ("confusion", "mistakes"):
        assert "colabcnn.Error: " in str(outputs[cell]), cell


@pytest.mark.skipif(not ON_TENSORFLOW, reason="one notebook is executed on JAX")
@pytest.mark.colab
def test_comparison_works_with_shipped_runs_only_and_missing_ones(tmp_path):
    project = make_project(tmp_path)
    for name in ("results", "colabcnn"):  # With a link, the library would use the results beside its real folder.
        (project / name).unlink()
    shutil.copytree(ROOT / "colabcnn", project / "colabcnn")
    measured = project / "results" / "01_descending_kernels" / "seed-0"
    measured.mkdir(parents=True)
    write_history(measured / "history.csv", history_of(0.2, 0.3))
    outputs = execute(project, "10_compare_runs", tmp_path)
    assert WIDGET in kinds(outputs["explore"])
    assert outputs["mistakes"] == []
    table = "".join(outputs["table"][0]["data"]["text/markdown"])
    assert table.count("not yet measured") == len(EXPERIMENTS) - 1


@pytest.mark.colab
@pytest.mark.skipif(not ON_TENSORFLOW, reason="one notebook is executed on JAX")
def test_comparison_shows_shared_runs(tmp_path, small_experiment, small_options):
    (tmp_path / "project").mkdir()
    project = make_project(tmp_path / "project")
    colabcnn.run(small_experiment, tmp_path / "theirs", **{**small_options, "epochs": 1})
    digest = colabcnn.export(tmp_path / "theirs", tmp_path / "run.safetensors", quiet=True)
    server = FileServer(tmp_path)
    try:
        server.files["/run.safetensors"] = (tmp_path / "run.safetensors").read_bytes()
        link = f"{server.address}/run.safetensors#sha256={digest}"
        outputs = execute(project, "10_compare_runs", tmp_path, LINKS=f"{server.address}/no-such-run {link}", RUN=99)
    finally:
        server.close()
    assert "Its SHA-256 is the one that you gave." in str(outputs["fetch"])
    assert f"{server.address}/no-such-run: " in str(outputs["fetch"])
    assert "There is no run with the number 99" in str(outputs["confusion"])
    outputs = execute(project, "10_compare_runs", tmp_path)
    (row,) = [line for line in "".join(outputs["table"][0]["data"]["text/markdown"]).splitlines() if "`small`" in line]
    assert "shared by somebody" in row
    assert WIDGET in kinds(outputs["explore"])
    assert "image/png" in kinds(outputs["confusion"])
    assert "image/png" in kinds(outputs["mistakes"])

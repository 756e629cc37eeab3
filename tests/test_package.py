"""The package imports quickly and without large libraries, and its files agree with each other."""

import dataclasses
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import colabcnn
from colabcnn import Error, notebook
from colabcnn.training.request import HELP, RunRequest

pytestmark = pytest.mark.versions

ROOT = Path(__file__).resolve().parents[1]


def in_python(code, **environment):
    env = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"} | environment
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout


def test_keras_runs_on_jax_where_tensorflow_is_missing():
    code = (
        "import importlib.util as util; find = util.find_spec;"
        "util.find_spec = lambda name, *rest: None if name == 'tensorflow' else find(name, *rest);"
        "import colabcnn, os; print(os.environ.get('KERAS_BACKEND'))"
    )
    assert in_python(code).strip() == "jax"
    assert in_python(code, KERAS_BACKEND="tensorflow").strip() == "tensorflow"


def test_every_public_name_exists_and_is_documented():
    for name in colabcnn.__all__:
        value = getattr(colabcnn, name)
        if callable(value):
            assert value.__doc__, name
    with pytest.raises(AttributeError, match="nothing"):
        colabcnn.nothing  # noqa: B018


def test_error_is_one_message_in_a_notebook(shell):
    shown = []
    shell._showtraceback = lambda kind, value, lines: shown.extend(lines)
    shell.run_cell("import colabcnn; raise colabcnn.Error('one readable message')")
    assert shown == ["colabcnn.Error: one readable message"]


def test_notebook_shows_an_error_as_text_with_advice_and_continues_with_the_next_cell(shell, capsys):
    notebook._register_errors()
    refused = "raise colabcnn.Error('too long', 'too_long', epochs=3, train_size=200)"
    # A kernel runs the next cell only if this one succeeded.
    assert shell.run_cell(f"import colabcnn; {refused}").success
    assert not shell.run_cell("raise ValueError('not an error of this library')").success
    # The cells below would use a former value.
    refused = "colabcnn.Experiment(\n    'mine',\n    dropout=3,\n)"
    assert not shell.run_cell(f"%matplotlib agg\nfirst = 1\nEXPERIMENT = {refused}").success
    assert not shell.run_cell(f"if first:\n    EXPERIMENT: object = {refused}").success
    assert shell.run_cell(f"first = 1\nif first:\n    {refused};").success
    assert shell.run_cell("@colabcnn.find_experiment('unknown')\ndef function():\n    pass").success
    message, advice = capsys.readouterr().err.splitlines()[:2]
    assert message == "colabcnn.Error: too long"
    assert "TRAIN_SIZE = 200" in advice
    assert "EPOCHS = 3" in advice
    assert "08_in_minutes" in advice


def test_advice_names_no_size_if_none_fits():
    assert "set " not in notebook.advice(Error("too long", "too_long"))
    assert notebook.advice(Error("another", "another_run")) == notebook.ADVICE["another_run"]
    assert notebook.advice(Error("other")) == ""


@pytest.mark.parametrize("pins", ["requirements-gpu.txt", "requirements-tpu.txt"])
def test_colabs_versions_meet_the_lower_bounds(pins):
    def parse(text):
        return {
            name: tuple(int(part) for part in number.split("."))
            for name, number in re.findall(r"^([\w-]+)[=>]=([\d.]+)", text, re.MULTILINE)
        }

    pinned = parse((ROOT / "tests" / "colab" / pins).read_text().replace("tensorflow-cpu", "tensorflow"))
    bounds = parse((ROOT / "requirements.txt").read_text())
    assert set(bounds) - set(pinned) == (set() if "gpu" in pins else {"tensorflow"})
    for name in set(bounds) & set(pinned):
        assert pinned[name] >= bounds[name], name


def test_requirements_are_lower_bounds_except_for_keras():
    lines = (ROOT / "requirements.txt").read_text().split()
    assert {"tensorflow", "numpy", "matplotlib", "ipywidgets", "gdown"} <= {line.partition(">=")[0] for line in lines}
    assert all(re.fullmatch(r"[a-z]+>=[\d.]+", line) for line in lines if line != "keras>=3.13,<4")


def test_speeds_of_the_documentation_equal_those_of_the_benchmark():
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    table = page.partition("<!-- speed -->\n")[2].partition("\n\n")[0]
    documented = [line[2:-2].split(" | ") for line in table.splitlines()[2:]]
    (benchmark,) = (ROOT / "results" / "benchmarks").glob("amd-epyc-2-cores-mixed-bfloat16.md")
    measured = [line[2:-2].split(" | ") for line in benchmark.read_text().splitlines() if line.startswith("| ")]
    assert len(documented) >= 5
    assert all(row in [[cells[0], *cells[2:5]] for cells in measured] for row in documented)


def test_run_names_every_option_with_its_type_and_its_help():
    parameters = inspect.signature(colabcnn.run).parameters
    request = {field.name: field for field in dataclasses.fields(RunRequest)}
    assert list(parameters) == list(request)
    assert {name: value.default for name, value in parameters.items() if name in HELP} == {
        name: request[name].default for name in HELP
    }
    assert set(HELP) == set(request) - {"experiment", "run_dir"}
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters.values())
    assert all(f"{name}: " in colabcnn.run.__doc__ for name in HELP)

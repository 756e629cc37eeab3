"""The command line reports an error in one line, never as a traceback."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
from PIL import Image

from colabcnn import ABLATIONS, RECIPES, __version__, shipped_results, verbs
from colabcnn.cli import main
from colabcnn.store.experiment_file import write_experiment
from colabcnn.store.history import read_history
from support.shared_files import COMPLETE

SHIPPED = shipped_results() / "06_final" / "seed-0"
SMALL = ("--data", "synthetic", "--train-size", "32", "--val-size", "20")


def assert_refused(completed, *words):
    assert completed.returncode == 2, completed.stderr
    lines = [line for line in completed.stderr.splitlines() if line.startswith(("colabcnn:", "python -m colabcnn"))]
    assert len(lines) == 1, completed.stderr
    assert "Traceback" not in completed.stderr + completed.stdout
    for word in words:
        assert word in lines[0]


@pytest.fixture
def main_here(capsys):
    """Run the command line in this process, which has imported Keras; its status and streams as of another one."""

    def main_here(*arguments):
        try:
            status = main([*map(str, arguments)])
        except SystemExit as exit:
            status = exit.code
        return subprocess.CompletedProcess(arguments, status, *capsys.readouterr())

    return main_here


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The file of an experiment with a small network."""
    path = tmp_path_factory.mktemp("experiment") / "small.json"
    write_experiment(path, COMPLETE)
    return path


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    """That experiment, trained for one tiny epoch by the command line: its folder and what was printed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    command = [sys.executable, "-m", "colabcnn", "train", small, "--run-dir", folder, "--epochs", "1", *SMALL]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert completed.returncode == 0, completed.stderr
    return folder, completed.stdout


def test_train_prints_its_progress_and_the_path_of_the_picture(trained):
    folder, output = trained
    assert "small, seed 0: epoch 1 to 1 on" in output
    assert re.search(r"epoch 1/1 .* images/s.* · epoch 1: loss \d", output)
    assert f"The curves: {folder / 'curves.png'}" in output
    assert read_history(folder / "history.csv")["epoch"] == [1]


def test_same_command_trains_nothing(trained, small, main_here):
    folder, _ = trained
    before = (folder / "run.json").read_bytes()
    again = main_here("train", small, "--run-dir", folder, *SMALL)
    assert again.returncode == 0, again.stderr
    assert "Nothing is left to train" in again.stdout
    assert (folder / "run.json").read_bytes() == before


def test_status_in_words_and_in_json(trained, run_cli):
    folder, _ = trained
    values = json.loads(run_cli("status", folder, "--json").stdout)
    assert set(values) == {
        "experiment",
        "seed",
        "epoch",
        "epochs",
        "best_val_accuracy",
        "best_epoch",
        "complete",
        "weights_sha256",
    }
    assert "small, seed 0: epoch 1 of 1, complete" in run_cli("status", folder).stdout


def test_status_verify_checks_every_checkpoint_and_names_the_one_to_resume(trained, run_cli, tmp_path):
    folder = shutil.copytree(trained[0], tmp_path / "run")
    (valid,) = (folder / "checkpoints").iterdir()
    truncated = folder / "checkpoints" / valid.name.replace("epoch-000001", "epoch-000002")
    truncated.write_bytes(valid.read_bytes()[:-1])
    completed = run_cli("status", folder, "--verify")
    assert completed.returncode == 0
    assert f"{truncated.name} is truncated or altered" in completed.stdout
    assert f"epoch 1: {valid.name} verifies\nA resume continues from {valid.name}." in completed.stdout
    valid.unlink()
    completed = run_cli("status", folder, "--verify", "--json")
    assert completed.returncode == 2
    assert json.loads(completed.stdout)["restored"] is None
    assert [checkpoint["epoch"] for checkpoint in json.loads(completed.stdout)["checkpoints"]] == [2]


@pytest.mark.kill
def test_drive_folder_on_the_command_line_delivers_the_complete_run(tmp_path, main_here, run_cli, small):
    command = ["train", small, "--epochs", "1", *SMALL, "--drive-folder", tmp_path / "drive"]
    assert run_cli(*command, "--run-dir", tmp_path / "one").returncode == 0
    delivered = {path.name for path in (tmp_path / "drive").iterdir()}
    assert delivered == {"checkpoints", "run.json", "history.csv", "curves.png", "model.keras", "session-1.json"}
    elsewhere = main_here(*command, "--run-dir", tmp_path / "two")
    assert "Fetched from" in elsewhere.stdout
    assert "Nothing is left to train" in elsewhere.stdout
    assert (tmp_path / "two" / "history.csv").read_bytes() == (tmp_path / "one" / "history.csv").read_bytes()


def test_status_does_not_import_keras(trained):
    folder, _ = trained
    code = (
        "import sys; from colabcnn.cli import main; main(['status', sys.argv[1]]);"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'keras', 'tensorflow', 'jax', 'matplotlib'}))"
    )
    completed = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True)
    assert completed.stdout.splitlines()[-1] == "[]"


def test_plot_writes_the_picture(trained, run_cli, tmp_path):
    folder, _ = trained
    path = tmp_path / "curves.png"
    zoom = ("--metric", "accuracy", "--epochs", "1:5", "--range", ":0.95", "--line", "0.9")
    assert run_cli("plot", folder, "-o", path, *zoom).returncode == 0
    assert path.read_bytes().startswith(b"\x89PNG")


def test_list_shows_the_articles_figures(run_cli):
    lines = run_cli("list").stdout.splitlines()
    assert [line.split()[0] for line in lines if line[:1].isdigit()] == [*ABLATIONS, *RECIPES]
    assert "0.9010 at epoch 326" in lines[lines.index(next(line for line in lines if line.startswith("06_final"))) + 1]


def test_help_explains_every_verb(main_here):
    verbs = re.findall(r"^ {4}(\w+) +\S", main_here("--help").stdout, re.MULTILINE)
    assert len(verbs) == 13
    for verb in verbs:
        usage, description, *_ = main_here(verb, "--help").stdout.split("\n\n")
        assert usage.startswith("usage:")
        assert description.rstrip().endswith("."), verb


def test_invalid_input_is_one_line_and_exit_code_2(main_here, tmp_path):
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("precious")
    train = ("train", "06_final", *SMALL)
    assert_refused(main_here("train", "07_none", "--run-dir", folder), "07_none", "06_final")
    assert_refused(main_here(*train, "--run-dir", folder, "--epochs", "-3"), "epochs is -3")
    assert_refused(main_here(*train, "--run-dir", folder, "--epochs", "three"), "three")
    assert_refused(main_here(*train, "--run-dir", file), "is a file")
    assert_refused(main_here(*train), "--run-dir")
    assert_refused(main_here("train", "06_final", "--run-dir", folder, "--data", tmp_path / "nowhere"), "nowhere")
    assert_refused(main_here("status", tmp_path), "holds no run")
    assert_refused(main_here("evaluate", tmp_path), "holds no run")
    assert_refused(main_here("plot", tmp_path, "-o", folder / "x.png"), "history.csv")
    assert_refused(main_here("plot", tmp_path, "-o", "x.png", "--epochs", "5"), "not a range")
    assert_refused(main_here("plot", tmp_path, "-o", "x.png", "--epochs", "nan:"), "not a range")
    assert_refused(main_here("status", "~nobody-of-that-name/run"), "~nobody-of-that-name")
    assert_refused(main_here("status", "x" * 300), "File name too long")
    assert_refused(main_here("fly"), "fly")
    assert file.read_text() == "precious"
    assert not folder.exists() or {path.name for path in folder.iterdir()} <= {"lock"}


def test_another_experiment_in_the_folder_is_refused_and_changes_no_file(trained, main_here):
    folder, _ = trained
    (folder / "lock").unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert_refused(
        main_here("train", "05_ascending_kernels", "--run-dir", folder, *SMALL), "small", "05_ascending_kernels"
    )
    (folder / "lock").unlink()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_read_only_folder_is_refused(main_here, mount_tmpfs):
    folder = mount_tmpfs("ro")
    assert_refused(main_here("train", "06_final", "--run-dir", folder, *SMALL), str(folder), "Read-only file system")


def test_full_disk_is_one_line_and_keeps_the_history(main_here, mount_tmpfs):
    tiny_disk = mount_tmpfs("size=1m")
    completed = main_here("train", "06_final", "--run-dir", tiny_disk / "run", "--epochs", "1", *SMALL)
    assert_refused(completed, "No space left on device", "make room")
    assert not [path for path in tiny_disk.rglob("*") if path.name.endswith(".partial")]
    assert read_history(tiny_disk / "run" / "history.csv")["epoch"] == [1]


def test_ctrl_c_takes_effect_behind_the_import_of_keras(tmp_path, monkeypatch):
    (tmp_path / "keras.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\nis_imported = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "keras")
    with pytest.raises(KeyboardInterrupt):
        verbs._import_keras()
    assert sys.modules["keras"].is_imported
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.kill
def test_demo_trains_once(main_here, tmp_path, monkeypatch):
    for name, value in {"train_size": 64, "val_size": 20, "epochs": 1}.items():
        monkeypatch.setitem(verbs.DEMO_OPTIONS, name, value)
    first, again = (main_here("demo", "--run-dir", tmp_path / "demo") for _ in range(2))
    assert (first.returncode, again.returncode) == (0, 0)
    assert "The curves:" in first.stdout
    assert "Nothing is left to train" in again.stdout


def test_demo_in_the_folder_of_another_run_is_advised_no_option_that_it_lacks(main_here, trained):
    assert_refused(completed := main_here("demo", "--run-dir", trained[0]), "holds another run")
    assert "--start-over" not in completed.stderr


@pytest.mark.kill
def test_ctrl_c_ends_with_exit_code_3_and_explains_how_to_resume(tmp_path, small):
    command = [sys.executable, "-m", "colabcnn", "train", small, "--run-dir", tmp_path / "run", *SMALL]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("epoch"):
            process.send_signal(signal.SIGINT)
            break
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    assert "the same call" in output
    # By the time that the first epoch, which holds the compilation, has taken or is known to take.
    assert re.search(r"Stops soon|No checkpoint was taken yet|The checkpoint of epoch \d+ is kept", output)
    assert "Traceback" not in errors


def test_version_is_the_one_of_the_package():
    from importlib.metadata import version

    assert version("colabcnn") == __version__


def test_version_is_printed(main_here):
    assert main_here("--version").stdout == f"colabcnn {__version__}\n"


def test_list_fits_a_terminal_of_80_columns(main_here):
    assert max(map(len, main_here("list").stdout.splitlines())) <= 80


@pytest.mark.parametrize("given", ["06", "06_finl", "6_final"])
def test_name_that_is_nearly_an_experiments_is_suggested(main_here, tmp_path, given):
    assert_refused(main_here("train", given, "--run-dir", tmp_path / "run"), "Did you mean 06_final?")


@pytest.fixture
def results(tmp_path):
    """Two runs of an experiment that have histories alone."""
    for seed in (0, 1):
        folder = tmp_path / "results" / "06_final" / f"seed-{seed}"
        shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns("checkpoints"))
    return tmp_path / "results"


def test_status_of_a_run_without_a_checkpoint_is_that_of_its_history(main_here, results):
    history = read_history(SHIPPED / "history.csv")
    output = main_here("status", results / "06_final" / "seed-0").stdout
    ends = f"the history ends with epoch {len(history['epoch'])} of 20, validation {history['val_accuracy'][-1]:.4f}"
    assert f"no checkpoint is here; {ends}" in output
    assert_refused(main_here("evaluate", results / "06_final" / "seed-0"), "none is here", "where it was trained")


def test_summary_fits_the_terminal_or_is_markdown(main_here, results, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = main_here("summary", results).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "06_final" in lines
    assert any("the article reports best 0.9010 at epoch 326" in line for line in lines)
    table = main_here("summary", results, "--markdown").stdout
    assert table.startswith("| experiment | the article reports |")


def test_summary_of_a_folder_inside_the_results_names_the_right_one(main_here, results):
    for inside in ("06_final", "06_final/seed-0"):
        assert_refused(
            main_here("summary", results / inside), "has no folder <experiment>/seed-<n>/", "Did you mean", "results"
        )
    assert main_here("summary", results).returncode == 0
    moved = shutil.copytree(results / "06_final" / "seed-0", results.parent / "moved" / "mine")
    assert_refused(
        main_here("summary", moved.parent), "has no folder <experiment>/seed-<n>/", f"There is a run in {moved}."
    )


def test_plot_and_explore_take_folders_of_runs(main_here, results, tmp_path):
    assert main_here("plot", results, "-o", tmp_path / "curves.png").returncode == 0
    assert main_here("explore", results, "-o", tmp_path / "curves.html").returncode == 0
    assert (tmp_path / "curves.html").read_text().startswith("<!doctype html>")
    (tmp_path / "mine.json").write_text("{}")
    assert_refused(main_here("explore", results, "-o", tmp_path / "mine.json"), "expected one that ends in .html")
    assert (tmp_path / "mine.json").read_text() == "{}"


def test_plot_without_any_epoch_of_the_runs_is_refused(main_here, results, tmp_path):
    count = len(read_history(SHIPPED / "history.csv")["epoch"])
    for epochs in (f"{count + 1}:{count + 9}", f"{count + 1}:", ":0"):
        refused = main_here("plot", results, "-o", tmp_path / "x.png", "--epochs", epochs)
        assert_refused(refused, f"expected some of 1 to {count}")
    assert not (tmp_path / "x.png").exists()


def test_predict_prints_the_most_probable_classes(trained, main_here, tmp_path):
    Image.new("RGB", (40, 50), "blue").save(tmp_path / "blue.png")
    completed = main_here("predict", trained[0], tmp_path / "blue.png", "-o", tmp_path / "prediction.png")
    assert completed.returncode == 0, completed.stderr
    probabilities = [float(line.split()[1]) for line in completed.stdout.splitlines()[:3]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert (tmp_path / "prediction.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_outside_a_terminal_is_text_alone(trained, main_here, few_test_images, tmp_path):
    folder = shutil.copytree(trained[0], tmp_path / "run")
    completed = main_here("evaluate", folder)
    assert completed.returncode == 0, completed.stderr
    assert "\x1b" not in completed.stdout
    assert [line.partition(" ")[0] for line in completed.stdout.splitlines()] == ["last", "best"]


def test_picture_is_never_replaced_by_the_drawing_of_it(trained, main_here, tmp_path, monkeypatch):
    folder, _ = trained
    Image.new("RGB", (40, 30), "red").save(tmp_path / "cat.png")
    (tmp_path / "link.png").symlink_to("cat.png")
    before = (tmp_path / "cat.png").read_bytes()
    monkeypatch.chdir(tmp_path)
    for output in ("cat.png", tmp_path / "link.png"):
        assert_refused(main_here("predict", folder, "cat.png", "-o", output), "is the picture itself")
    assert (tmp_path / "cat.png").read_bytes() == before
    assert_refused(
        main_here("predict", folder, "none.png", "-o", "cat.png"), "none.png is missing", "the path of a picture"
    )


def test_reader_that_exits_early_is_no_error():
    command = f"{sys.executable} -m colabcnn list | true; exit ${{PIPESTATUS[0]}}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    completed = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)
    assert (completed.returncode, completed.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "06_final", "--run-dir", ""), "'' is no path"),
        (
            ("train", "06_final", "--run-dir", "run", "--epochs", 10**20),
            f"expected a whole number from 1 to {2**63 - 1}",
        ),
        (("status", ""), "'' is no path"),
        (("summary", __file__), "is a file"),
        (("status", "--verify", __file__), "is a file"),
        (("plot", SHIPPED, "-o", "p.png", "--line", "nan"), "line is nan; expected a finite number"),
    ],
)
def test_more_invalid_input_is_one_line(main_here, arguments, words):
    assert_refused(main_here(*arguments), words)


def test_summary_of_a_link_into_the_results_names_the_right_folder(main_here, results, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(results / "06_final" / "seed-0")
    monkeypatch.chdir(tmp_path)
    assert_refused(main_here("summary", "link"), f"Did you mean {results.relative_to(tmp_path)}?")

"""The setup cell finds the library or installs it at the notebook's tag, and continues without Drive."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from stamp_address import project, setup_cell

pytestmark = pytest.mark.notebook


ROOT = Path(__file__).resolve().parents[2]
TAG = f"v{project()['version']}"
RESULT_FILES = ["history.csv", "run.json"]
HOMEPAGE = project()["urls"]["Homepage"]
# No variable of this process leads to the library.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
RUN = "import sys\nfrom IPython.core.interactiveshell import InteractiveShell\n"
RUN += "done = InteractiveShell.instance().run_cell(sys.stdin.read())\nsys.exit(not done.success)"


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A Python with all packages of this one except the library itself."""
    folder = tmp_path_factory.mktemp("runtime")
    venv.create(folder, with_pip=False)
    packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    # Python reads `.pth` files of this folder only, so an editable installation of the library is not found.
    (packages / "all.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A repository of the project with the version's tag, as its owner would push it."""
    folder = tmp_path_factory.mktemp("home") / "colabcnn"
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run([*git, "clone", "-q", "--no-local", ROOT, folder], check=True)
    measured = folder / "results" / "06_final" / "seed-7"
    measured.mkdir(parents=True)
    for name in RESULT_FILES:
        (measured / name).write_text("")
    for arguments in (("add", "--all"), ("commit", "-q", "-m", "a measured run"), ("tag", "-f", TAG)):
        subprocess.run([*git, *arguments], cwd=folder, check=True, capture_output=True)
    return f"file://{folder}"


def run_cell(python, folder, home, **environment):
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "PIP_NO_BUILD_ISOLATION": "1", **environment}
    return subprocess.run(
        [python, "-c", RUN],
        input=setup_cell(home, TAG),
        cwd=folder,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
    )


def has_library(python, folder):
    code = (
        "import importlib.util as util; print(util.find_spec('colabcnn').origin if util.find_spec('colabcnn') else '')"
    )
    return subprocess.run(
        [python, "-c", code], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True
    ).stdout.strip()


def test_error_without_a_home_names_the_fix_and_installs_nothing(python, tmp_path):
    assert not has_library(python, tmp_path)
    completed = run_cell(python, tmp_path, HOMEPAGE)
    assert completed.returncode == 1
    assert "Put the project on Drive as MyDrive/colabcnn, or call tools/stamp_address.py" in completed.stdout
    assert not has_library(python, tmp_path)


def test_library_beside_the_notebook_is_used(python, tmp_path):
    (tmp_path / "notebooks").mkdir()
    for name in ("colabcnn", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    for folder in (tmp_path, tmp_path / "notebooks"):
        completed = run_cell(python, folder, HOMEPAGE)
        assert completed.returncode == 0, completed.stdout
        assert f"colabcnn {TAG[1:]}" in completed.stdout


@pytest.mark.parametrize("error", ["NotImplementedError('no Drive here')", "RuntimeError('credentials refused')"])
def test_setup_continues_without_drive_and_warns(python, tmp_path, error):
    package = tmp_path / "google" / "colab"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")  # There is none in `google` itself, a folder that other packages share.
    (package / "drive.py").write_text(f"def mount(place):\n    raise {error}\n")
    (tmp_path / "colabcnn").symlink_to(ROOT / "colabcnn")
    completed = run_cell(python, tmp_path, HOMEPAGE, COLAB_RELEASE_TAG="release-colab", PYTHONPATH=str(tmp_path))
    assert completed.returncode == 0, completed.stdout
    assert "GOOGLE DRIVE IS NOT MOUNTED" in completed.stdout
    assert "an earlier run on Drive is not found" in completed.stdout


def test_empty_folder_of_the_same_name_is_not_the_library(python, tmp_path):
    (tmp_path / "colabcnn").mkdir()
    completed = run_cell(python, tmp_path, HOMEPAGE)
    assert "Put the project on Drive" in completed.stdout
    for name in ("colabcnn", "pyproject.toml"):
        (tmp_path / "colabcnn" / name).symlink_to(ROOT / name)
    completed = run_cell(python, tmp_path, HOMEPAGE)
    assert completed.returncode == 0, completed.stdout


def test_given_backend_is_kept(python, tmp_path):
    (tmp_path / "colabcnn").symlink_to(ROOT / "colabcnn")
    completed = run_cell(python, tmp_path, HOMEPAGE, KERAS_BACKEND="jax")
    assert "jaxlib" in completed.stdout


def test_library_is_installed_from_the_home_at_the_tag_with_its_measured_runs(python, home, tmp_path):
    completed = run_cell(python, tmp_path, home)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert f"colabcnn {TAG[1:]}" in completed.stdout
    installed = Path(has_library(python, tmp_path)).parent
    assert python.parent.parent in installed.parents
    installed_files = sorted(path.name for path in installed.glob("results/06_final/seed-7/*"))
    assert installed_files == RESULT_FILES

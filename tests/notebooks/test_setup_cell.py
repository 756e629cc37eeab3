"""The setup cell finds the library, or installs it at the notebook's own tag, and goes on where Drive is refused."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from stamp_address import project, setup_cell

ROOT = Path(__file__).resolve().parents[2]
TAG = f"v{project()['version']}"
CARRIED = ["history.csv", "run.json"]
NOBODYS = project()["urls"]["Homepage"]
# Nothing of this process leads to the library.
KEPT = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
RUN = "import sys\nfrom IPython.core.interactiveshell import InteractiveShell\n"
RUN += "done = InteractiveShell.instance().run_cell(sys.stdin.read())\nsys.exit(not done.success)"


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A Python that has all that this one has but for the library itself."""
    folder = tmp_path_factory.mktemp("runtime")
    venv.create(folder, with_pip=False)
    packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    # What an installation of the library in place hooks into its folder is not followed from here.
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
    for name in CARRIED:
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
        env=KEPT | environment,
        capture_output=True,
        text=True,
    )


def has_library(python, folder):
    code = (
        "import importlib.util as util; print(util.find_spec('colabcnn').origin if util.find_spec('colabcnn') else '')"
    )
    return subprocess.run([python, "-c", code], cwd=folder, env=KEPT, capture_output=True, text=True).stdout.strip()


def test_without_a_home_nothing_is_installed_and_it_says_what_to_do(python, tmp_path):
    assert not has_library(python, tmp_path)
    done = run_cell(python, tmp_path, NOBODYS)
    assert done.returncode == 1
    assert "Put the project on Drive as MyDrive/colabcnn, or call tools/stamp_address.py" in done.stdout
    assert not has_library(python, tmp_path)


def test_library_beside_the_notebook_is_taken(python, tmp_path):
    (tmp_path / "notebooks").mkdir()
    for name in ("colabcnn", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    for folder in (tmp_path, tmp_path / "notebooks"):
        done = run_cell(python, folder, NOBODYS)
        assert done.returncode == 0, done.stdout
        assert f"colabcnn {TAG[1:]}" in done.stdout


@pytest.mark.parametrize("why", ["NotImplementedError('no Drive here')", "RuntimeError('credentials refused')"])
def test_where_drive_is_refused_it_goes_on_and_says_so_loudly(python, tmp_path, why):
    package = tmp_path / "google" / "colab"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")  # None in google itself, which other packages share.
    (package / "drive.py").write_text(f"def mount(place):\n    raise {why}\n")
    (tmp_path / "colabcnn").symlink_to(ROOT / "colabcnn")
    done = run_cell(python, tmp_path, NOBODYS, COLAB_RELEASE_TAG="release-colab", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert "GOOGLE DRIVE IS NOT MOUNTED" in done.stdout
    assert "an earlier run on Drive is not found" in done.stdout


def test_folder_of_the_same_name_is_not_taken_for_the_library(python, tmp_path):
    (tmp_path / "colabcnn").mkdir()
    done = run_cell(python, tmp_path, NOBODYS)
    assert "Put the project on Drive" in done.stdout
    for name in ("colabcnn", "pyproject.toml"):
        (tmp_path / "colabcnn" / name).symlink_to(ROOT / name)
    done = run_cell(python, tmp_path, NOBODYS)
    assert done.returncode == 0, done.stdout


def test_backend_that_is_set_is_kept(python, tmp_path):
    (tmp_path / "colabcnn").symlink_to(ROOT / "colabcnn")
    done = run_cell(python, tmp_path, NOBODYS, KERAS_BACKEND="jax")
    assert "jaxlib" in done.stdout


def test_library_is_installed_from_the_home_at_the_tag_with_its_measured_runs(python, home, tmp_path):
    done = run_cell(python, tmp_path, home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"colabcnn {TAG[1:]}" in done.stdout
    installed = Path(has_library(python, tmp_path)).parent
    assert python.parent.parent in installed.parents
    carried = sorted(path.name for path in installed.glob("results/06_final/seed-7/*"))
    assert carried == CARRIED

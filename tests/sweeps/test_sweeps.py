"""A sweep ends with the runs of an undisturbed one, whatever is killed; what is finished is not trained again."""

import errno
import json
import logging
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import colabcnn
from colabcnn import own_process
from colabcnn.cli import main
from colabcnn.store.experiment_file import write_experiment
from colabcnn.store.history import read_history
from colabcnn.sweeps import task
from colabcnn.sweeps.cluster import Workers, connect
from support.dask_cluster import DaskCluster
from support.runs import differences
from support.shared_files import EXPERIMENT
from support.terminal import screen

pytest.importorskip("distributed", reason="dask.distributed is not installed: pip install distributed")

pytestmark = pytest.mark.kill

SIZES = (
    "--data",
    "synthetic",
    "--train-size",
    "1000",
    "--val-size",
    "40",
    "--epochs",
    "5",
    "--checkpoint-minutes",
    "0",
)


@pytest.fixture(scope="module")
def experiment_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiment") / "small.json"
    write_experiment(path, EXPERIMENT)
    return path


@pytest.fixture
def start_sweep(experiment_file):
    """Return a function that starts a sweep of small runs by the command line."""
    started = []

    def start_sweep(root, *options, seeds="0:3", **streams):
        command = [sys.executable, "-m", "colabcnn", "sweep", experiment_file, "--seeds", seeds, "--root", root]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} | streams
        started.append(subprocess.Popen([*command, *SIZES, *options], **streams))
        return started[-1]

    yield start_sweep
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def sweep(start_sweep):
    """Return a function that runs a sweep to its end, and returns what it printed."""

    def sweep(root, *options, ends=0, **more):
        process = start_sweep(root, *options, **more)
        output, _ = process.communicate(timeout=900)
        assert process.returncode == ends, output
        assert "Traceback" not in output
        return output

    return sweep


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, experiment_file):
    """The root of three runs that nothing disturbed, and what was printed."""
    root = tmp_path_factory.mktemp("undisturbed") / "runs"
    command = [sys.executable, "-m", "colabcnn", "sweep", experiment_file, "--seeds", "0:3", "--root", root, *SIZES]
    completed = subprocess.run([*command, "--jobs", "2"], capture_output=True, text=True, timeout=900)
    assert completed.returncode == 0, completed.stderr
    return root, completed.stdout


@pytest.fixture
def cluster(tmp_path):
    folder = tmp_path / "cluster"
    folder.mkdir()
    cluster = DaskCluster(folder)
    yield cluster
    cluster.close()


def run_dirs(root, count=3):
    return [root / EXPERIMENT.name / f"seed-{seed}" for seed in range(count)]


def assert_same(root, undisturbed, count=3):
    for run_dir, other in zip(run_dirs(root, count), run_dirs(undisturbed[0], count), strict=True):
        assert differences(run_dir, other) == []


def starts(run_dir):
    return json.loads((run_dir / "run.json").read_text())["starts"]


def wait_for(condition, seconds=600):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def in_training(root):
    """Return a run's folder that has an epoch, and lacks the last."""
    for history in root.glob("*/seed-*/history.csv"):
        if 1 <= len(read_history(history)["epoch"]) < 5:
            return history.parent
    return None


def pause_a_run(root):
    """Stop a trainer in the middle of its run, so that it cannot end by itself; return the run's folder and its id."""
    run_dir = wait_for(lambda: in_training(root))
    trainer = int((run_dir / "lock").read_text())
    os.kill(trainer, signal.SIGSTOP)
    assert 1 <= len(read_history(run_dir / "history.csv")["epoch"]) < 5
    return run_dir, trainer


def is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def has_sigterm(process):
    """Return whether SIGTERM waits for a process that is paused."""
    waiting = re.findall("^(?:SigPnd|ShdPnd):\\s+(\\w+)", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return any(int(signals, 16) & 1 << signal.SIGTERM - 1 for signals in waiting)


def most_at_once(output):
    """Return how many runs were in training at the same time, by the printed changes."""
    training, most = set(), 0
    for name, state in re.findall(r"^(\S+): (\w+)", output, re.MULTILINE):
        training = training | {name} if state == "training" else training - {name}
        most = max(most, len(training))
    return most


def test_sweep_reports_each_run_and_again_trains_nothing(undisturbed, sweep):
    root, output = undisturbed
    assert most_at_once(output) == 2
    assert len(re.findall(r"^small/seed-\d: finished, epoch 5 of 5, validation 0\.", output, re.MULTILINE)) == 3
    assert "all 5 epochs are done" in (run_dirs(root)[0] / "train.log").read_text()
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    assert sweep(root).count("finished") == 3
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before


def test_worker_killed_in_the_middle_of_a_run(tmp_path, cluster, undisturbed, start_sweep, sweep):
    workers = [cluster.start_worker("--nthreads", "4") for _ in range(2)]
    cluster.wait_for_workers()
    root = tmp_path / "runs"
    process = start_sweep(root, "--scheduler", cluster.address)
    run_dir, trainer = pause_a_run(root)
    parent = int(Path(f"/proc/{trainer}/stat").read_text().rpartition(")")[2].split()[1])
    (killed,) = [worker for worker in workers if worker.pid == parent]
    cluster.kill(killed)
    wait_for(lambda: not is_alive(trainer), seconds=5)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    assert most_at_once(output) == 2
    assert len(starts(run_dir)) == 2
    assert_same(root, undisturbed)
    assert sweep(root, "--scheduler", cluster.address).count("finished") == 3


def test_scheduler_killed_and_started_again(tmp_path, cluster, undisturbed, start_sweep, sweep):
    workers = [cluster.start_worker() for _ in range(2)]
    cluster.wait_for_workers()
    root = tmp_path / "runs"
    process = start_sweep(root, "--scheduler", cluster.address)
    _, trainer = pause_a_run(root)
    cluster.kill(cluster.scheduler)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert output.splitlines()[-1].startswith("colabcnn: the scheduler is gone; start it and its workers again")
    assert "distributed" not in output
    wait_for(lambda: not is_alive(trainer), seconds=30)
    for worker in workers:
        worker.wait(timeout=60)
    cluster.start_scheduler()
    for _ in range(2):
        cluster.start_worker()
    cluster.wait_for_workers()
    sweep(root, "--scheduler", cluster.address)
    assert_same(root, undisturbed)


def test_what_dask_logs_is_not_shown_during_a_sweep():
    """A sweep reports lost workers and schedulers itself; dask gives several of its loggers a level of their own."""
    import distributed  # noqa: F401 - sets the levels

    def levels():
        names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"]
        return {name: logging.getLogger(name).getEffectiveLevel() for name in names}

    before = levels()
    assert min(before.values()) <= logging.WARNING
    with connect(None, 1):
        assert set(levels().values()) == {logging.CRITICAL}
    assert before.items() <= levels().items()


def lose_connection(workers):
    raise ConnectionError("in <TCP (closed) ConnectionPool>: Stream is closed")


def close_client(workers):
    workers._client.close()
    workers._client.nthreads()


def fill_disk(workers):
    raise OSError(errno.ENOSPC, "No space left on device", "token")


@pytest.mark.parametrize(
    ("fail", "kind", "words"),
    [
        (lose_connection, colabcnn.Error, "the scheduler is gone"),
        (close_client, colabcnn.Error, "the scheduler is gone"),
        (fill_disk, OSError, "No space left on device"),
    ],
)
def test_error_of_the_scheduler_and_of_the_disk_are_told_apart(tmp_path, monkeypatch, fail, kind, words):
    monkeypatch.setattr(Workers, "wait", fail)
    with pytest.raises(kind, match=words):
        colabcnn.sweep(EXPERIMENT, seeds=0, root=tmp_path / "runs", quiet=True, data="synthetic")


def test_run_dies_with_the_sweep_and_is_continued(tmp_path, undisturbed, start_sweep, sweep):
    root = tmp_path / "runs"
    process = start_sweep(root, seeds="0")
    _, trainer = pause_a_run(root)
    process.kill()
    wait_for(lambda: not is_alive(trainer), seconds=5)
    sweep(root, seeds="0")
    assert_same(root, undisturbed, 1)


def test_two_sweeps_at_once_over_one_root_train_each_run_once(mount, undisturbed, start_sweep):
    root = mount.path / "runs"
    processes = [start_sweep(root, seeds="0:2") for _ in range(2)]
    outputs = [process.communicate(timeout=900)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert [len(starts(run_dir)) for run_dir in run_dirs(root, 2)] == [1, 1]
    assert "trained elsewhere, " in "".join(outputs)
    assert "is being trained in by process" in "".join(outputs)
    assert_same(root, undisturbed, 2)


def test_run_refused_because_another_sweep_trains_it_waits_for_that_one(tmp_path, monkeypatch):
    # The other sweep's process prints into the same train.log, also after the refusal.
    printed = ["colabcnn: seed-0 is being trained in by process 1; wait.", "To share it: -o FILE.safetensors"]
    refused = tmp_path / "refused"
    once = f"import pathlib; refused = pathlib.Path({str(refused)!r}); first = not refused.exists(); refused.touch(); "
    refuse = f"print({printed[0]!r}, {printed[1]!r}, sep=chr(10)); raise SystemExit(2)"
    monkeypatch.setattr(own_process, "_START", f"{once}\nif first: {refuse}\n{own_process._START}")
    monkeypatch.setattr("colabcnn.sweeps.sweep._CHECK_AGAIN_SECONDS", 0)
    sizes = {"data": "synthetic", "train_size": 200, "val_size": 20, "epochs": 1}
    states = colabcnn.sweep(EXPERIMENT, seeds=0, root=tmp_path / "runs", quiet=True, **sizes)
    assert refused.exists()
    assert states == {tmp_path / "runs/small/seed-0": "finished"}


def test_two_machines_with_one_drive_train_each_run_once(mount, tmp_path, undisturbed, start_sweep):
    drive = mount.path / "drive"
    first = start_sweep(tmp_path / "one", "--drive", drive, "--drive-minutes", "0", seeds="0:2")
    wait_for(lambda: list(mount.files.glob("drive/*/seed-0/session-1.json")))
    second = start_sweep(tmp_path / "two", "--drive", drive, "--drive-minutes", "0", seeds="0:2")
    outputs = [process.communicate(timeout=900)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert "small/seed-0: trained elsewhere, another session was active in" in outputs[1]
    for root in (tmp_path / "one", tmp_path / "two"):
        assert_same(root, undisturbed, 2)
        assert [len(starts(run_dir)) for run_dir in run_dirs(root, 2)] == [1, 1]
    assert_same(mount.files / "drive", undisturbed, 2)
    assert sorted(path.name for path in mount.files.glob("drive/small/seed-1/session-*")) == [
        f"session-{number}.json" for number in range(1, 4)
    ]


def test_run_that_drive_refuses_is_named_and_delivered_by_the_same_call(mount, tmp_path, capsys):
    mount.faults(quota=1000)
    sizes = {"data": "synthetic", "train_size": 200, "val_size": 20, "epochs": 1}
    options = {"seeds": 0, "root": tmp_path / "runs", "drive": mount.path / "drive", **sizes}
    assert [*colabcnn.sweep(EXPERIMENT, **options).values()] == ["finished"]
    undelivered = f"small/seed-0: finished, Epoch 1 is not in {mount.path / 'drive/small/seed-0'} yet ("
    assert undelivered in capsys.readouterr().out
    mount.faults()
    assert [*colabcnn.sweep(EXPERIMENT, **options).values()] == ["finished"]
    assert "is not in" not in capsys.readouterr().out
    assert list(mount.files.glob("drive/small/seed-0/checkpoints/epoch-*"))


def test_lost_mount_fails_a_sweep_that_could_wait_for_ever(tmp_path, mount):
    mount.kill()
    sizes = {"data": "synthetic", "train_size": 200, "val_size": 20, "epochs": 1, "quiet": True}
    with pytest.raises(colabcnn.Error, match=r"1 of 1 runs failed.*Mount it again"):
        colabcnn.sweep(EXPERIMENT, seeds=0, root=tmp_path / "runs", drive=mount.path / "drive", **sizes)


def test_finished_run_is_not_delivered_over_another_one(tmp_path):
    drive, sizes = tmp_path / "drive", {"data": "synthetic", "train_size": 200, "val_size": 20, "epochs": 1}
    other = drive / "small" / "seed-0"
    colabcnn.run(EXPERIMENT, tmp_path / "other", drive_folder=other, seed=1, quiet=True, **sizes)
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    run_dir = tmp_path / "runs" / "small" / "seed-0"
    colabcnn.run(EXPERIMENT, run_dir, quiet=True, **sizes)
    with pytest.raises(colabcnn.Error, match="holds another run: its seed is 1, now given 0"):
        colabcnn.sweep(EXPERIMENT, seeds=0, root=tmp_path / "runs", drive=drive, quiet=True, **sizes)
    assert all(path.read_bytes() == content for path, content in before.items() if "session" not in path.name)


def test_run_waits_while_drive_does_not_respond(mount, tmp_path, monkeypatch):
    calls = ("getattr", "open", "readdir", "create", "write", "read", "mkdir")
    mount.faults(errors={call: [errno.EIO, -1] for call in calls})
    seen, check = [], task.check_availability

    def check_and_mend(*arguments):
        seen.append(check(*arguments))
        mount.faults()
        return seen[-1]

    monkeypatch.setattr(task, "check_availability", check_and_mend)
    monkeypatch.setattr("colabcnn.sweeps.sweep._CHECK_AGAIN_SECONDS", 0)
    sizes = {"data": "synthetic", "train_size": 200, "val_size": 20, "epochs": 1, "quiet": True}
    states = colabcnn.sweep(EXPERIMENT, seeds=0, root=tmp_path / "runs", drive=mount.path / "drive", **sizes)
    assert [state for state, _ in seen] == ["waiting", "waiting"]
    assert [bool(reason) for _, reason in seen] == [True, False]
    assert [*states.values()] == ["finished"]


def test_modules_of_the_users_project_are_not_imported_by_a_runs_process(tmp_path, monkeypatch):
    for name in ("random", "compression"):  # JAX tries the second, which only a newer Python has.
        (tmp_path / f"{name}.py").write_text("raise ZeroDivisionError")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sizes = {"data": "synthetic", "train_size": 200, "val_size": 20, "epochs": 1, "quiet": True}
    assert [*colabcnn.sweep(EXPERIMENT, seeds=0, root="runs", **sizes).values()] == ["finished"]


def test_ctrl_c_in_a_terminal_stops_in_order_and_the_command_continues(tmp_path, undisturbed, start_sweep, sweep):
    root = tmp_path / "runs"
    terminal, child_end = pty.openpty()
    streams = {"stdin": child_end, "stdout": child_end, "stderr": child_end, "text": False}
    process = start_sweep(root, seeds="0:2", start_new_session=True, **streams)
    os.close(child_end)
    _, trainer = pause_a_run(root)
    process.send_signal(signal.SIGINT)
    wait_for(lambda: has_sigterm(trainer))
    os.kill(trainer, signal.SIGCONT)
    written = b""
    try:
        while block := os.read(terminal, 4096):
            written += block
    except OSError:  # The process has closed its end.
        pass
    os.close(terminal)
    assert process.wait(timeout=60) == 3
    shown = screen(re.sub(r"\x1b\[\?\d+.", "", written.decode()))
    assert "Stops soon: an epoch that ends within 15 s is finished. A second Ctrl-C or stop ends at once." in shown
    assert [line.partition(",")[0] for line in shown if line.startswith("small/")] == [
        "small/seed-0: stopped",
        "small/seed-1: stopped",
    ]
    assert starts(run_dirs(root)[0])[-1]["ended"].startswith("interrupted")
    assert not run_dirs(root)[1].exists()
    sweep(root, seeds="0")
    assert_same(root, undisturbed, 1)


def test_failed_runs_do_not_stop_the_others(tmp_path, undisturbed, start_sweep):
    root = tmp_path / "runs"
    killed, blocked, good, is_file = run_dirs(root, 4)
    blocked.mkdir(parents=True)
    (blocked / "checkpoints").write_text("precious")
    is_file.write_text("precious")
    process = start_sweep(root, "--retries", "1", seeds="0:4")
    os.kill(pause_a_run(root)[1], signal.SIGKILL)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 2
    last = output.splitlines()[-1]
    reason = f"colabcnn: {blocked / 'checkpoints'}: File exists ({blocked / 'train.log'})"
    assert last.startswith(f"colabcnn: 2 of 4 runs failed. small/seed-1: {reason} small/seed-3: {is_file} is a file;")
    assert [len(starts(run_dir)) for run_dir in (killed, good)] == [2, 1]
    for seed in (0, 2):
        assert differences(run_dirs(root)[seed], run_dirs(undisturbed[0])[seed]) == []


def test_run_whose_process_is_killed_too_often_fails(tmp_path, start_sweep):
    root = tmp_path / "runs"
    process = start_sweep(root, "--retries", "0", seeds="0")
    os.kill(pause_a_run(root)[1], signal.SIGKILL)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 2
    last = r"colabcnn: 1 of 1 runs failed\. small/seed-0: .* \(SIGKILL\) \("
    assert re.match(last, output.splitlines()[-1])


def test_dry_run_shows_what_each_run_would_do_and_changes_nothing(tmp_path, undisturbed, sweep):
    root = tmp_path / "runs"
    assert sweep(root, "--dry-run", seeds="0:2").splitlines() == [
        "small/seed-0: would start",
        "small/seed-1: would start",
    ]
    assert not root.exists()
    shutil.copytree(undisturbed[0], root)
    sorted((run_dirs(root)[1] / "checkpoints").iterdir())[-1].unlink()
    before = sorted(root.rglob("*"))
    finished, continued = sweep(root, "--dry-run", seeds="0:2").splitlines()
    assert finished.startswith("small/seed-0: finished, epoch 5 of 5")
    assert continued.startswith("small/seed-1: would continue, ")
    assert sorted(root.rglob("*")) == before


def test_after_its_hours_a_sweep_starts_nothing_more(tmp_path, sweep):
    output = sweep(tmp_path / "runs", "--hours", "1e-9", seeds="0:2", ends=3)
    assert output.count(": stopped, the hours have passed") == 2
    assert not list(tmp_path.glob("runs/*/seed-*"))


def refusal(output):
    """Return the one line of an error."""
    (line,) = [line for line in output.splitlines() if line.startswith(("colabcnn:", "python -m colabcnn"))]
    return line


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["06_final", "--seeds", "5:3"], "seeds is '5:3'; expected A:B"),
        (["06_final", "--root", "file"], "is a file"),
        (["06_final", "--retries", "-1"], "retries is -1"),
        (["06_final", "--jobs", "2", "--scheduler", "tcp://127.0.0.1:1"], "leave jobs out"),
        (["06_finl"], "Did you mean 06_final?"),
        (["none.json"], "none.json cannot be read (No such file or directory)"),
        (["06_final", "--scheduler", "tcp://127.0.0.1:1"], "scheduler tcp://127.0.0.1:1 does not answer within 0.5 s"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, monkeypatch, options, error):
    monkeypatch.setattr("colabcnn.sweeps.cluster._ANSWER_SECONDS", 0.5)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("precious")
    experiment, *others = options
    assert main(["sweep", experiment, "--seeds", "0", "--root", "runs", *others]) == 2
    assert error in refusal(capsys.readouterr().err)
    assert (tmp_path / "file").read_text() == "precious"
    assert not list(tmp_path.glob("runs/*/seed-*"))


def test_worker_without_the_library_or_the_folder_is_one_line(tmp_path, cluster, sweep):
    root = tmp_path / "runs"
    output = sweep(root, "--scheduler", cluster.address, ends=2)
    assert f"there is no worker that can train; start one: dask worker {cluster.address}" in refusal(output)
    without = "import sys; sys.modules['colabcnn'] = None; from dask.__main__ import main; main()"
    options = ["worker", cluster.address, "--no-nanny", "--no-dashboard"]
    worker = cluster.start([sys.executable, "-c", without, *options], "worker-without-library")
    cluster.wait_for_workers()
    output = sweep(root, "--scheduler", cluster.address, ends=2)
    assert re.search(r"^The worker tcp://\S+ cannot load colabcnn.sweeps \(", output, re.MULTILINE)
    assert "there is no worker that can train" in refusal(output)
    cluster.kill(worker)
    hide = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs "$0" && exec "$@"', str(root)]
    if subprocess.run([*hide, "true"], capture_output=True).returncode:
        pytest.skip("another view of the disk needs root")
    cluster.start_worker(before=hide)
    cluster.wait_for_workers()
    output = sweep(root, "--scheduler", cluster.address, ends=2)
    assert f"does not see the files in {root}; expected storage that all machines share." in output


def test_missing_dask_is_one_line_that_says_what_to_install(tmp_path, experiment_file):
    code = "import sys; sys.modules['distributed'] = None; from colabcnn.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "sweep", experiment_file, "--seeds", "0", "--root", tmp_path / "runs"]
    completed = subprocess.run(command, capture_output=True, text=True)
    assert completed.returncode == 2
    assert refusal(completed.stderr).endswith("install it: pip install distributed")
    assert not (tmp_path / "runs").exists()

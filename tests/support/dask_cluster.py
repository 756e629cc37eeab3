"""A dask scheduler and its workers, started as a person starts them: `dask scheduler`, `dask worker ADDRESS`."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class DaskCluster:
    """A scheduler on a free port of 127.0.0.1; `folder` gets the logs."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.processes = []
        self.start_scheduler()

    def start_scheduler(self):
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"]
        self.scheduler = self.start([sys.executable, "-m", "dask", "scheduler", *options], "scheduler")
        deadline = time.monotonic() + 60
        while True:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert time.monotonic() < deadline and self.scheduler.poll() is None
            time.sleep(0.1)

    def start_worker(self, *options, before=()):
        """Start a worker in one process; `before` is a command that starts it."""
        command = [*before, sys.executable, "-m", "dask", "worker", self.address, "--no-nanny", "--no-dashboard"]
        return self.start([*command, *options], f"worker-{len(self.processes)}")

    def wait_for_workers(self):
        """Wait until all workers that were started are known to the scheduler."""
        deadline = time.monotonic() + 300
        for log in self.folder.glob("worker-*.log"):
            while "Registered to" not in log.read_text():
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)

    def start(self, command, name):
        local = ["--local-directory", str(self.folder / name)] if "worker" in command else []
        with open(self.folder / f"{name}.log", "ab") as log:
            environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
            process = subprocess.Popen([*command, *local], stdout=log, stderr=log, cwd=self.folder, env=environment)
        self.processes.append(process)
        return process

    def kill(self, process):
        process.send_signal(signal.SIGKILL)
        process.wait()

    def close(self):
        for process in self.processes:
            self.kill(process)

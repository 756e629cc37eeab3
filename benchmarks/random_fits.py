"""Fits of random models, killed and resumed: python benchmarks/random_fits.py [--models N] [--backend tensorflow jax]

Each model is trained for 6 epochs with `CheckpointToDrive`, ended before the fourth (the last of each ten by SIGKILL),
and resumed in another process; it must equal a fit that was never stopped, bit for bit. Prints what differs, and a
table of how many fits of each kind were equal, for docs/reliability.md. Exits with 1 if one was not.
"""

import argparse
import collections
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.random_fits import KINDS

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "tests" / "support" / "random_fits.py"
MODELS_A_PROCESS = 10


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=int, default=60)
    parser.add_argument("--backend", nargs="+", default=["tensorflow", "jax"])
    options = parser.parse_args()
    equal, fits = collections.Counter(), collections.Counter()
    failed = 0
    for backend in options.backend:
        for first in range(0, options.models, MODELS_A_PROCESS):
            seeds = range(first, min(first + MODELS_A_PROCESS, options.models))
            for fit in killed_and_resumed(backend, seeds):
                if fit["differing"]:
                    failed += 1
                    print(
                        f"{backend}, seed {fit['seed']} ({', '.join(fit['kinds'])}): {fit['differing'][:5]}", flush=True
                    )
                for kind in fit["kinds"]:
                    fits[kind, backend] += 1
                    equal[kind, backend] += not fit["differing"]
    print(f"| a fit with | {' | '.join(f'equal under {backend}' for backend in options.backend)} |")
    print(f"|---|{'---|' * len(options.backend)}")
    for kind in KINDS:
        cells = [f"{equal[kind, b]} of {fits[kind, b]}" if fits[kind, b] else "-" for b in options.backend]
        print(f"| {kind} | {' | '.join(cells)} |")
    sys.exit(bool(failed))


def killed_and_resumed(backend, seeds):
    """Return what the script reports of each fit."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        for verb, status in ("train", -signal.SIGKILL), ("resume", 0):
            command = [sys.executable, str(SCRIPT), verb, folder, *map(str, seeds)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode != status:
                sys.exit(f"{verb} ended with {done.returncode}: {done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


if __name__ == "__main__":
    main()

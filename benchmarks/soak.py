"""One run, killed many times: python benchmarks/soak.py [--backend tensorflow|jax] [--kills N] [--epochs N]

Each session of a small run (dropout, augmentation and BatchNorm on) gets SIGKILL at a moment chosen by the seed: while
it restores, in a step, in validation, at an I/O call of a save, or after some seconds. The result is compared, bit for
bit, with an uninterrupted run: weights, optimizer, best weights, history. Prints the kills
by kind and the differences found. The tests' `sessions.py` forks the sessions.
"""

import argparse
import collections
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from colabcnn import status
from colabcnn.store.checkpoint_files import checkpoint_files
from colabcnn.store.history import read_history
from support.forked_sessions import Sessions
from support.runs import differences


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backend", default="tensorflow")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, sessions, kinds = random.Random(options.seed), Sessions(options.backend), collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        uninterrupted, killed = Path(folder, "uninterrupted"), Path(folder, "killed")
        run = {"epochs": options.epochs, "recipe": "06_final"}
        sessions(uninterrupted, **run)
        began = time.monotonic()
        while kinds.total() < options.kills:
            done = status(killed)["epoch"] if checkpoint_files(killed / "checkpoints") else 0
            behind = (options.epochs - done) * options.kills > options.epochs * (options.kills - kinds.total())
            kill = choose_kill(rng, done, may_advance=behind and done < options.epochs - 5)
            sessions.start(killed, kill=kill, **run)
            ended, output = sessions.finish()
            if ended == -signal.SIGKILL:
                kinds[next(iter(kill))] += 1
            elif ended or done == options.epochs:
                sys.exit(f"a session ended with {ended} after {kinds.total()} kills: {output}")
        sessions(killed, **run)
        sessions.close()
        differing = differences(uninterrupted, killed)
        epochs = read_history(killed / "history.csv")["epoch"]
    rows = "" if epochs == list(range(1, options.epochs + 1)) else ", rows missing or twice in the history"
    print(
        f"{options.backend}, seed {options.seed}: {kinds.total()} kills over {options.epochs} epochs in "
        f"{time.monotonic() - began:.0f} s ({', '.join(f'{kind} {count}' for kind, count in sorted(kinds.items()))}); "
        f"{len(differing)} differences {differing or ''}{rows}"
    )
    sys.exit(bool(differing or rows))


def choose_kill(rng, done, may_advance):
    """Return when to kill a session that resumes after `done`; before its next checkpoint unless `may_advance`."""
    epoch = done + (2 if may_advance and rng.random() < 0.5 else 1)
    kinds = [
        {"restore": rng.randrange(1, 17)},
        {"step": [epoch, rng.randrange(7)]},
        {"validation": epoch},
        {"io": rng.randrange(1, 20 if may_advance else 12)},
    ]
    return rng.choice([*kinds, {"seconds": rng.uniform(0.5, 4)}] if may_advance else kinds)


if __name__ == "__main__":
    main()

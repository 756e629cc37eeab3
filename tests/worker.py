"""Train a small run in a process of its own, which a test may kill: worker.py RUN_DIR OPTIONS."""

import json
import sys
from dataclasses import replace

import numpy as np

from colabcnn import ABLATIONS, run, trainer

run_dir, options = sys.argv[1], json.loads(sys.argv[2])
altered_epoch = options.pop("altered_epoch", None)

if altered_epoch:
    plan_epoch = trainer.plan_epoch

    def plan_with_one_row_altered(seed, epoch, **arguments):
        plan = plan_epoch(seed, epoch, **arguments)
        if epoch == altered_epoch:
            plan.rows[3] = (plan.rows[3] + 1) % np.int64(len(plan.rows))
        return plan

    trainer.plan_epoch = plan_with_one_row_altered

experiment = replace(ABLATIONS["06_final"], name="small", filters=(4, 4, 8), batch_size=16)
run(experiment, run_dir, data="synthetic", train_size=100, val_size=40, checkpoint_minutes=0, quiet=True, **options)

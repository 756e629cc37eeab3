"""Many runs on dask.distributed: on this machine, or on a cluster whose workers share the runs' folder."""

"""One run, from its first start to its last epoch."""

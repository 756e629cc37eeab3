"""What is trained: everything that decides what a run computes."""

"""The images: CIFAR-10, synthetic ones, their split, and the plan of an epoch."""

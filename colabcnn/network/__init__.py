"""The network, its training steps and its devices."""

"""How the network computes and is trained."""

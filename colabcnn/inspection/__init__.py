"""Trained weights: their evaluation, their predictions and the model file."""

"""Measure a device for the project."""

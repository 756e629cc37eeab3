"""The experiments: all settings that determine a run's results."""

"""A run's folder on any disk."""

"""A run's folder on Google Drive, reached by a separate process."""

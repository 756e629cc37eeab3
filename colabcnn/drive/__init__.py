"""A run's folder on Google Drive, reached by a process of its own."""

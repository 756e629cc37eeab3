"""A run as one file: exported, fetched and checked."""

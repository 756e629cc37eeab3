"""Curves and tables, from histories."""

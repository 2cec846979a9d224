"""Placeholder replaced by the package author."""

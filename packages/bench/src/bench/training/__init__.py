"""Cells and packs, the training loop, and the offline job."""

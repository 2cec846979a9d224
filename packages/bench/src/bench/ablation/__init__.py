"""Comparisons of parts of TRQAM with what they replace: `bench ablate`."""

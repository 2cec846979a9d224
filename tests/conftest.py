"""What holds for every test."""

from hypothesis import settings

# Machines are shared and differ: how long an example takes says nothing about the code.
settings.register_profile("shared machines", deadline=None)
settings.load_profile("shared machines")

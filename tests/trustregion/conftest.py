"""Shapes of the public functions are checked at run time in these tests."""

import pytest
from jaxtyping import config, install_import_hook

with install_import_hook(["flowsde", "adjoint", "trustregion"], "beartype.beartype"):
    import adjoint  # noqa: F401
    import trustregion  # noqa: F401


@pytest.fixture
def unchecked():
    """The functions as a user has them, without the check of shapes at run time."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)

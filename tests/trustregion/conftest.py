"""Shapes of the public functions are checked at run time in these tests."""

from jaxtyping import install_import_hook

with install_import_hook(["flowsde", "adjoint", "trustregion"], "beartype.beartype"):
    import adjoint  # noqa: F401
    import trustregion  # noqa: F401

"""`python -m ioa_jax`, which is `ioa`."""

from ioa_jax.cli import main

main()

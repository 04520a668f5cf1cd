"""The names that others import, and what importing them costs."""

import subprocess
import sys

import pytest

import ioa_jax


@pytest.mark.parametrize("name", ioa_jax.__all__)
def test_every_public_name_is_there(name):
    assert getattr(ioa_jax, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="distil_everything"):
        ioa_jax.distil_everything  # noqa: B018


def test_importing_the_package_doesnt_import_jax():
    program = "import sys, ioa_jax, ioa_jax.cli, suite.cli; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0

"""Files that survive a kill."""

from ioa_jax.files import read_json, write_json, write_text
from ioa_jax.journal import Journal, read_journal

__all__ = ["Journal", "read_journal", "read_json", "write_json", "write_text"]

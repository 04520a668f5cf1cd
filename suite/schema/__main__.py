"""`python -m suite.schema` writes the schemas again, after a change of the models."""

from __future__ import annotations

from ioa_jax.files import write_text
from suite.schema import FOLDER, SCHEMAS, schema_text

for name in SCHEMAS:
    write_text(FOLDER / f"{name}.schema.json", schema_text(name))

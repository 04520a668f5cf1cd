"""What a run comes to: table.json, .md, .csv, .tex, plots/*.svg and report.html."""

from __future__ import annotations

"""Commands of `ioa` that need more than a page."""

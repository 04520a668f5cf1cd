"""Speed and memory beside torch + transformers, measured in one run.

Absolute times of one machine say little; every figure here is a ratio of medians of alternating
rounds in the same process.
"""

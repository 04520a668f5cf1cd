"""What may come to a program from outside, and what must not come of it."""

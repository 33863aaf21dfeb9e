"""Checking and timing on the machine at hand: what `python -m jconv` runs."""

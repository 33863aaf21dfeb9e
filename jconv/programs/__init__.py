"""Whole programs: accelerated, explained, tuned; read, and never rewritten."""

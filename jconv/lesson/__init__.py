"""The interactive lesson: one self-contained page, every number in it computed by jconv."""

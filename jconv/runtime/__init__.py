"""Where it runs: what this system, this JAX and this jaxlib can do, and the file of what was found out."""

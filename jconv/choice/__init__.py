"""Which algorithm: each one asked once, then priced by the rates of the platform, then picked."""

"""On many devices: which rows a device needs of its neighbours, and who holds what."""

"""How a run is laid out on devices, and nothing about language."""

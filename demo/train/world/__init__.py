"""The small world that the demo model sees: scenes of emoji and words, and what can be asked about them."""

"""Ways to make a trained network smaller: masks and quantisers as pure functions on a population's parameters."""

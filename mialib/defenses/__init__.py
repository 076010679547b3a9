"""Defences: objectives for training, and maps from log-posteriors to log-posteriors."""

"""Detector bytes become messages: the receiver with its sources, and the simulated detector."""

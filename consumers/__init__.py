"""Rejoin the sectors, count the electrons, write the file."""

"""Durable jobs: taken, worked off item by item, told."""

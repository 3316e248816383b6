"""Engines: what runs the base model. Each prepares on the CPU, infers on a device, and finishes."""

"""What surrounds every request: ids, headers, limits, metrics, draining; pure ASGI."""

"""What surrounds every request: ids, headers, limits, metrics; pure ASGI."""

"""What make calls; the parts of it that are Python."""

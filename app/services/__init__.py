"""What the coordinator does, apart from HTTP."""

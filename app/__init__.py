"""The coordinator: the public service that routes a request and asks the expert for it."""

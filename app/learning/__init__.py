"""Trains the router from feedback, and keeps its versions: `python -m app.learning`."""

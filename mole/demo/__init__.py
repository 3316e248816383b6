"""`mole demo`: the whole request path on the embedded models."""

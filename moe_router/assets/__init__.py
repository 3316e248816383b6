"""Models that are assembled or converted once, and then read from the cache."""

"""The console: pages for people at the root of the coordinator, served whole from this package."""

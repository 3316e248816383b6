"""The worker service: one process, one base model, its adapters."""

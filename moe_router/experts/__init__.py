"""Experts: one adapter, prompt template and label set on a base model, asked in batches."""

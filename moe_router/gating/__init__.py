"""Gating: finds the language, the domain and the task of a request, and the expert to ask."""

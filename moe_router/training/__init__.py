"""How the weights are made: gating's data, heads and router, and the experts' adapters."""

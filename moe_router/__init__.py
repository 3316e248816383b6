"""The core of MoLE: gating, experts and the words that the services share. Serves no HTTP."""

"""The workers: which there are, how one is asked, and what is done when one fails."""

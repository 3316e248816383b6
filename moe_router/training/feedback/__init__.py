"""From feedback to a candidate for the router, and whether it may go live."""

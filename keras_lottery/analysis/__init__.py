"""Questions to trained networks and tickets: how stable, how connected, what they look like."""

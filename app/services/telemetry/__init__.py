"""What operators see: metrics for Prometheus, counters and the last hour for people."""

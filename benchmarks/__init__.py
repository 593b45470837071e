"""What we claim, reproducible: each prints a ratio and writes JSON."""

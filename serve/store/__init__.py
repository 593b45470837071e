"""What outlives every process: tasks, keys, routers, batches, uploads, webhook deliveries, notes."""

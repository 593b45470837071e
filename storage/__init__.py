"""The object store protocol, a local folder and S3 behind it, every key, the ledger."""

"""Where a clip comes from: content credentials (C2PA) and an invisible watermark; making them and reading them."""

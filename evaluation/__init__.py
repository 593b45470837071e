"""What clips show, measured from their pixels, and how groups of them compare. No weights, no stores, no Ray."""

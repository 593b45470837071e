"""A Renderer, a Publisher, and their faces for Ray Data and Ray Serve."""

"""Whether what goes in may be rendered and what came out may be published: who scores it, and what follows."""

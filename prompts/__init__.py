"""Prompts before anything is rendered: templates that make them, and what looks like a mistake in them."""

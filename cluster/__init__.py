"""Decisions about capacity, as pure functions: no Ray, no HTTP, no clock."""

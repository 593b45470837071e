"""The batch flow on Ray Data: read, plan, render, record, report."""

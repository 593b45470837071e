"""What crosses a boundary: requests, tasks, clips, the catalog, errors. pydantic and stdlib only."""

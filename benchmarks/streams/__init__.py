"""Streams beside other engines, and what its own path costs."""

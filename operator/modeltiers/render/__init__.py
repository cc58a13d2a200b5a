"""Desired objects as plain dicts. Pure: the same decision renders the same bytes."""

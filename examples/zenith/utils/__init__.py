"""Passwords and tokens, and types of fields."""

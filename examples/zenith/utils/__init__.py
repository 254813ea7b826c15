"""Passwords, tokens and field types."""

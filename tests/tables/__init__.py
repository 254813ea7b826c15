"""The mappings that the tests share. ``tests/README.md`` says what is in which module."""

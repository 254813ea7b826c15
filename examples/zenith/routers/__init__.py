"""Routes, one module for each of the page's."""

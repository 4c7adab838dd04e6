"""ESC-RIB (arXiv 2603.06738)."""

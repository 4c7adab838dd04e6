"""`flashrib::WindowAttention`."""

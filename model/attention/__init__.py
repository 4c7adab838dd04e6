"""One folder per attention operator."""

"""Pictures: files to arrays and back."""

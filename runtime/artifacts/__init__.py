"""What our files say about themselves, and how files are read, proven and written."""

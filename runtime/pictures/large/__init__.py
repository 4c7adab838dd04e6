"""Pictures that are never in memory as a whole: read, upscaled and written in bands of rows."""

"""Videos: frames with their times, colours and depth in and out, and everything else in the file copied; needs PyAV."""

"""What the commands do with many inputs: values and callbacks, no command line."""

"""The operator of Fibottention in exported files: its row for the table, its bodies, its plugin."""

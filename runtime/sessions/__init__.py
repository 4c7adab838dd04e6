"""Whatever runs a model: one module per kind of session, and the table of kinds."""

"""The deployment a user writes down in YAML: its schema, how it is read, and what makes it impossible."""

"""Tasks of one's own: a YAML file that says how rows of a table become questions."""

"""The groups of a configuration: a file each for what belongs together, and their checks."""

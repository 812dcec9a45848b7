"""The application: a run from images to exported files, one file for each `--mode`."""

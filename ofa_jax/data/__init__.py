"""Images: sources, transforms and the input pipeline."""

"""Costs of archs, as pure functions of arrays; never imports the models."""

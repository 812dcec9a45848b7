"""Subnets of a trained supernet: calibrate, evaluate, extract."""

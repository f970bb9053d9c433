"""Spec, estimate, plan, runs and the `plan` command line."""

__version__ = "0.1.0"

"""A real Slurm cluster and a real SkyPilot API server on loopback, for the tests that launch for real."""

"""Reservations and schedules: capacity bought once, at the right time; runs that start by themselves."""

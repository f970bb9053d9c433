"""The outside world: prices, launchers, object stores. Knows neither jobs nor planner."""

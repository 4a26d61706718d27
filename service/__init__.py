"""The front desk: Planish over HTTP. Knows neither torch nor the worker's code."""

"""The worker: Celery processes that run jobs; the engine below it knows neither."""

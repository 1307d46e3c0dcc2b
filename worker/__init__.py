"""Runs jobs: a Celery task supervises (supervisor.py), a child process solves (solver_process.py)."""

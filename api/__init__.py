"""The HTTP API: validates, authenticates, answers from the job store. Never imports torch."""

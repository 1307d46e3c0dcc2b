"""The Python client: numpy arrays in, numpy arrays out.

from dmft_client import Client
result = Client().solve(dataset="digits", classes=[0, 1], points=20, gamma0=1.0).wait().result()
"""

from dmft_client import nn
from dmft_client.client import Client
from dmft_client.compare import Comparison, compare
from dmft_client.errors import (
    ApiError,
    AuthenticationError,
    ClientError,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    SolveCancelled,
    SolveFailed,
    UnexpectedAnswer,
    WaitTimeout,
)
from dmft_client.result import Result
from dmft_client.solve import Solve

__all__ = [
    "ApiError",
    "AuthenticationError",
    "Client",
    "ClientError",
    "Comparison",
    "ConnectionFailed",
    "InvalidRequest",
    "NotFound",
    "Result",
    "Solve",
    "SolveCancelled",
    "SolveFailed",
    "UnexpectedAnswer",
    "WaitTimeout",
    "compare",
    "nn",
]

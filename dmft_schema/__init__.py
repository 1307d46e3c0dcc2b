"""The contract between server, worker and client: pydantic models, no torch, no celery."""

from dmft_schema.capabilities import Capabilities
from dmft_schema.data import Data, DigitsData, InputData, KernelData, UploadedData
from dmft_schema.job import (
    Event,
    FieldError,
    Job,
    JobError,
    JobPage,
    JobStatus,
    ProblemDetail,
    Progress,
)
from dmft_schema.kernels import kernel_layers, kernel_slice
from dmft_schema.methods import (
    AlternatingMethod,
    DmftMethod,
    FiniteWidthMethod,
    GradientIndependenceMethod,
    LinearMethod,
    PerturbationMethod,
    StaticNtkMethod,
)
from dmft_schema.request import (
    Network,
    Outputs,
    SolveRequest,
    Training,
)
from dmft_schema.result import Diagnostics, KernelSlice, ResultDocument, Summary
from dmft_schema.summary import RequestSummary

__all__ = [
    "AlternatingMethod",
    "Capabilities",
    "Data",
    "Diagnostics",
    "DigitsData",
    "DmftMethod",
    "Event",
    "FieldError",
    "FiniteWidthMethod",
    "GradientIndependenceMethod",
    "InputData",
    "Job",
    "JobError",
    "JobPage",
    "JobStatus",
    "KernelData",
    "KernelSlice",
    "LinearMethod",
    "Network",
    "Outputs",
    "PerturbationMethod",
    "ProblemDetail",
    "Progress",
    "RequestSummary",
    "ResultDocument",
    "SolveRequest",
    "StaticNtkMethod",
    "Summary",
    "Training",
    "UploadedData",
    "kernel_layers",
    "kernel_slice",
]

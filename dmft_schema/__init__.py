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
from dmft_schema.network import (
    BaseNetwork,
    ComposedNetwork,
    ConvolutionalNetwork,
    MlpNetwork,
    Network,
    RecurrentNetwork,
    ResidualNetwork,
    TransformerNetwork,
)
from dmft_schema.outputs import Outputs
from dmft_schema.request import SolveRequest
from dmft_schema.result import Diagnostics, KernelSlice, ResultDocument, Summary
from dmft_schema.summary import RequestSummary
from dmft_schema.training import Training

__all__ = [
    "AlternatingMethod",
    "BaseNetwork",
    "Capabilities",
    "ComposedNetwork",
    "ConvolutionalNetwork",
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
    "MlpNetwork",
    "Network",
    "Outputs",
    "PerturbationMethod",
    "ProblemDetail",
    "Progress",
    "RecurrentNetwork",
    "RequestSummary",
    "ResidualNetwork",
    "ResultDocument",
    "SolveRequest",
    "StaticNtkMethod",
    "Summary",
    "Training",
    "TransformerNetwork",
    "UploadedData",
    "kernel_layers",
    "kernel_slice",
]

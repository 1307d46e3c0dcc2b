"""The hard limits of the contract: one place for each number, quoted in every refusal."""

MAX_POINTS = 5_000
"""Training plus test points in one request."""

MAX_KERNEL_POINTS = 2_000
"""The same where the kernel is sent: its eigenvalues are looked at before it is taken."""

MAX_OUTPUTS = 100
MAX_INPUT_DIMENSION = 20_000
MAX_DEPTH = 32
MAX_STEPS = 100_000
MAX_STEP_POINTS = 2_000_000
"""steps x points x outputs: what the recorded trajectory grows with."""

MIN_SAMPLES = 64
DEFAULT_SAMPLES = 4096
MAX_SAMPLES = 1_000_000
MAX_REPLICAS = 64
MAX_ITERATIONS = 1_000
MAX_ALTERNATING_SIZE = 4_000
"""steps x points x outputs of the method alternating, whose memory grows as its square."""

MAX_PERTURBATION_ENTRIES = 10_000_000
"""steps x (points x outputs)^2 of the method perturbation, for other than deep linear networks."""

MAX_WIDTH = 16_384
MAX_ENSEMBLE = 256
MIN_FLOAT32_TOLERANCE = 1e-5
"""Rounding of float32 leaves no smaller direction meaningful."""

MAX_GAMMA0 = 1_000.0
MAX_SCALE = 100.0
MAX_WEIGHT_DECAY = 1_000.0
MAX_LEARNING_RATE = 10_000.0

MAX_KERNEL_ENTRIES = 2_048
"""times x points (x outputs, for g) up to which two-time kernels are written densely; beyond it as
factors."""

KERNEL_EIGENVALUE_TOLERANCE = 1e-8
"""Most negative eigenvalue of a kernel, relative to the largest, that is left as it is."""

KERNEL_ROUNDING = 2.0**-23
"""The spacing of float32 at 1. times max(4, P): the most negative eigenvalue, relative to the largest,
that rounding in float32 explains. It is accepted and set to zero, and the answer says so."""

KERNEL_SYMMETRY_TOLERANCE = KERNEL_ROUNDING
"""times max(4, P): largest |K - K^T| accepted, relative to the largest entry of K."""

MAX_KERNEL_SCALE = 1e30
MIN_KERNEL_SCALE = 1e-30
"""Largest entry of a kernel: sums of its squares are numbers in float32 (from 1e-38 to 3e38)."""

MAX_TARGET = 1e30
"""Largest |target|, for the same reason."""

MAX_FIELD_TIMES = 100
MAX_FIELD_NEURONS = 10_000

MAX_KERNEL_NAMES = 16
"""Entries of outputs.kernels; a name may come more than once."""

MAX_NAME_LENGTH = 200
MAX_TAGS = 16
MAX_TAG_LENGTH = 64
MAX_PRIORITY = 100

MAX_LAYERS = 200
"""Blocks of a network, those inside others included."""

MAX_NESTING = 8
"""Blocks inside each other."""

MAX_FILTER = 64
"""Size and stride of a convolution, size of a pool, along each axis."""

MAX_FILTER_OFFSETS = 256
"""Matrices of a convolution between neurons: its size, squared for images."""

MAX_HEAD_SIZE = 256
MAX_HEAD_GROUP = 1024
"""Least common multiple of a network's head sizes."""

MAX_ROWS = 10_000_000
"""Points times positions, where a network has most of them."""

MAX_KERNEL_AVERAGES = 2_000_000_000
"""Gaussian averages that kernels at t = 0 take in networks with positions: about an hour."""

MAX_SAMPLED_ROWS = 2_048
"""points x positions for which the kernels of attention at t = 0 are sampled."""

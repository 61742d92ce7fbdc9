from bandweave.generation.sampling import SamplingParams as SamplingParams
from bandweave.serving.load import load as load
from bandweave.serving.model import Completion as Completion
from bandweave.serving.model import Model as Model

__version__: str
NUMERICS_VERSION: int

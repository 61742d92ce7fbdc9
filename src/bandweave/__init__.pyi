from bandweave.generation.sampling import SamplingParams as SamplingParams
from bandweave.serving.model import Completion as Completion
from bandweave.serving.model import Model as Model
from bandweave.serving.model import load as load

__version__: str
NUMERICS_VERSION: int

from . import claims as claims
from . import files as files
from . import tables as tables
from . import vocabulary as vocabulary
from .claims import Claim as Claim
from .files import load as load
from .files import provenance as provenance
from .files import save as save

from . import attackers as attackers
from . import classifiers as classifiers
from . import decoders as decoders
from . import layers as layers
from .classifiers import make as make

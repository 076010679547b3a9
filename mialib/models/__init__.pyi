from . import attack_networks as attack_networks
from . import blocks as blocks
from . import classifiers as classifiers
from . import decoders as decoders
from . import layers as layers
from .classifiers import make as make

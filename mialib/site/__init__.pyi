from . import building as building
from . import checking as checking
from . import links as links
from . import pages as pages
from .building import build as build
from .checking import problems as problems

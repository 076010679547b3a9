"""The audit of your own networks: did compressing them change what they leak, and by how much?"""

import lazy_loader

# the names are in __init__.pyi; a file is imported when one of its names is first used
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

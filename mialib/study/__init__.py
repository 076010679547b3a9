"""What is compared, and attacked by whom: arms, the attacks on them, tidy rows and how they are read."""

import lazy_loader

# the names are in __init__.pyi; a file is imported when one of its names is first used
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

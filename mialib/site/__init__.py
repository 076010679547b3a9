"""All results as pages for a browser, from the executed notebooks: nothing is executed, nothing is loaded from elsewhere."""

import lazy_loader

# the names are in __init__.pyi; a file is imported when one of its names is first used
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""flowlib: particle-based video prediction, from a folder of videos to a model you can look at.

The package's own namespace is empty on purpose: `import flowlib` loads neither torch nor matplotlib.
Import from the module that holds the name, for example `from flowlib.tracks import Tracks`.
"""

import logging

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())

"""flowlib: particle-based video prediction, from a folder of videos to a model you can look at.

The package's own namespace is empty on purpose: `import flowlib` loads neither torch nor matplotlib.
Import from the module that holds the name, for example `from flowlib.tracks import Tracks`.
"""

import logging
import os

# Threads that wait for one another sleep: those that spin, as PyTorch's OpenMP has it, burn the cores that other
# processes hold them up on (bench/busy.py). Read when torch is loaded; what the user has set stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())

"""The viewers: a live widget in notebooks, a picture in saved ones, one HTML file anywhere else.

What a viewer draws it is handed: it knows nothing of models, datasets or networks. `TrajectoryViewer` is in
`trajectories`, `HandViewer` in `hands`; what they share is in `player`, `page` and `paper`.
"""

from flowlib.viewer.hands import HandViewer
from flowlib.viewer.trajectories import TrajectoryViewer, ViewedClip

__all__ = ["HandViewer", "TrajectoryViewer", "ViewedClip"]

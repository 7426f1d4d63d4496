"""What users hold: networks with their settings, a face for each kind of use, and `open`, which finds a file's.

`fastvoc` itself has the faces of the package and `open`; here is what a face of one's own is made of.
"""

from fastvoc.faces.face import Face, register

__all__ = ["Face", "register"]

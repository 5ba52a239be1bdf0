"""The names of the analyses, by what they look at."""

from convscope.analyses import find, names

SCANS = tuple(name for name in names() if find(name).reads == "test images")
OF_IMAGES = tuple(name for name in names() if find(name).reads == "image")

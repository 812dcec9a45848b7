"""Images: sources, transforms and the input pipeline."""

import os

# What OpenCV says of a damaged image is in our error, beside the file's name. Read when cv2 loads.
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")

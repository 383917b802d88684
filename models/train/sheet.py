"""Makes a sheet with source, teacher and student side by side, for pictures that were not used for
training.
"""

import cv2
import numpy as np

TITLE_ROWS = 22


def sheet(pictures, painters, titles, path):
    columns = [pictures, *[[painter.paint(picture) for picture in pictures] for painter in painters]]
    page = np.hstack([np.vstack(column) for column in columns])
    head = np.full((TITLE_ROWS, page.shape[1], 3), 255, np.uint8)
    for number, title in enumerate(titles):
        at = (number * pictures[0].shape[1] + 6, 16)
        cv2.putText(head, title, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.imwrite(str(path), cv2.cvtColor(np.vstack([head, page]), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])

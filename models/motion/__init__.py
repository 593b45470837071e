"""From keys to arrays a frame: camera-to-world matrices, boxes, flow; pictures moved and drawn by them. No torch."""

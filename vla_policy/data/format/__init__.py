"""The LeRobotDataset format: metadata, data files, videos and their spans, as other modules read and write them."""

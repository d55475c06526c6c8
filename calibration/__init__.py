"""What makes numbers trustworthy: statistics that turn a cosine into a false-alarm rate."""

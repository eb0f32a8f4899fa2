"""What is known of a configuration: learning curves, statistics, finalists and validation."""

"""What is known of a configuration: learning curves, statistics, selection and validation."""

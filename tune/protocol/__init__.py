"""What a study is: its settings, its search space, and what its trials and its folder hold."""

"""Several processes of one host on one study: starting them, and what each of them does."""

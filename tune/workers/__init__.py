"""Several processes of one host on one study: who starts them, and what each of them does."""

"""Finding a configuration: the study, where it is kept, what a trial does, who suggests."""

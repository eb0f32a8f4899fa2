"""What a person sees of a study: files, pictures, report, terminal, trackers."""

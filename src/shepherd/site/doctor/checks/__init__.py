"""One small function for each thing that can be wrong: from the situation to what is found."""

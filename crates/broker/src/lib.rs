//! Hands the freshest frame of each track to the first free worker.

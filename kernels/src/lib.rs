//! GPU proof-of-work GPOW/1.

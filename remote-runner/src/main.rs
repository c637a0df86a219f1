//! The remote runner.

fn main() {}

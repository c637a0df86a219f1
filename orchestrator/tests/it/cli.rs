//! The command line, as a person sees it: the built binary in a sealed environment.

mod config;
mod help;
pub mod operator;
mod refusals;
pub mod terminal;

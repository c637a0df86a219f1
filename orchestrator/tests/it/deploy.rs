//! `deploy` by the built binary on real SSH servers.

mod cuts;
pub mod host;
pub mod lies;
mod live;
mod outcomes;
pub mod places;

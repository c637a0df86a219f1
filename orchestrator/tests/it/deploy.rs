//! `deploy` by the built binary on real SSH servers.

mod cuts;
pub mod host;
mod lies;
mod live;
mod outcomes;
mod places;

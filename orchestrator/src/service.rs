//! The parts of the long-running service: the lock that there is one of it, and its loops.
//!
//! Each loop is a reconciler: it looks at what is, does what is to be done, publishes how that
//! went, and never gives up. All of them end with one token. What must *not* be here: printing, the
//! environment, HTTP.

mod admission;
mod containers;
mod grants;
mod instance;
mod validators;

pub use admission::Doorkeeper;
pub use containers::reconcile_containers;
pub use grants::reconcile_all;
pub use instance::{Instance, InstanceError};
pub use validators::{ChallengeParts, Challenges, Containers, Validators};

//! The labels that say whose a container is, the same for who writes them and who reads them.
//! Nothing without them is shown or touched.

/// The identity of the database that the container belongs to.
pub const OWNER: &str = "orchestrator.owner";

/// Its lease there, which is also our name for it.
pub const LEASE: &str = "orchestrator.lease";

/// When it must have ended, milliseconds since the Unix epoch.
pub const DEADLINE: &str = "orchestrator.deadline-ms";

/// The UUIDs of its GPUs, with commas between.
pub const GPUS: &str = "orchestrator.gpus";

/// [`FOREGROUND`] or `detached`.
pub const MODE: &str = "orchestrator.mode";

/// The [`MODE`] of a container that ends with its holder.
pub const FOREGROUND: &str = "foreground";

/// The hotkey of the validator that it was run for, if it was one.
pub const VALIDATOR: &str = "orchestrator.validator";

/// Until when it is kept at least once it has ended, milliseconds since the Unix epoch; later it may
/// be removed.
pub const KEEP: &str = "orchestrator.keep-until-ms";

/// `true` if it is to be removed when it has ended.
pub const REMOVE: &str = "orchestrator.remove";

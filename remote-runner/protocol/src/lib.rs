//! What the orchestrator and the remote runner say to each other.

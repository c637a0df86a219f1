//! What an SSH grant is made of: a public key that was parsed, a line of `authorized_keys`, the
//! edit of such a file, and the choice of hosts for validators. Pure: nothing here does I/O.
//!
//! A grant is one line that we own, recognised by its comment `orch:<grant id>` at the end. All
//! other bytes of the file are somebody else's and stay as they are.

mod assignment;
mod edit;
mod line;
mod public_key;

pub use assignment::{Candidate, assign};
pub use edit::{Edit, MAX_FILE_BYTES, edit, grant_ids};
pub use line::{Expiry, FromAddress, InvalidFrom, SshdVersion, line};
pub use public_key::{InvalidPublicKey, PublicKey};

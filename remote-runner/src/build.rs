//! Which build this is.

use std::fs::File;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

/// SHA-256 of the running executable, in lower-case hexadecimal. The kernel's own link is read, so
/// the answer is right even if the file was replaced meanwhile.
pub(crate) fn own_sha256() -> io::Result<String> {
    let mut file = File::open("/proc/self/exe")?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut chunk)?;
        match chunk.get(..read) {
            None | Some([]) => break,
            Some(bytes) => hasher.update(bytes),
        }
    }
    let digits = b"0123456789abcdef".map(char::from);
    let nibbles = hasher.finalize().into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    Ok(nibbles.filter_map(|nibble| digits.get(usize::from(nibble))).collect())
}

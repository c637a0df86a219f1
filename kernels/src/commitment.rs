//! Openings against a BLAKE3 root. `SPEC.md` section 9.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::proof::{CHUNK_BYTES, MAX_PATH, Opening};

/// Whether `opening` shows chunk `index` of the input of `2^path_len` chunks whose keyed hash is
/// `root`.
///
/// False for a path of another length, an index outside the input, or a tree of a single chunk.
#[must_use]
pub fn check_opening(
    key: &[u8; 32],
    root: &[u8; 32],
    index: u64,
    path_len: u32,
    opening: &Opening,
) -> bool {
    let siblings = opening.path.siblings();
    if siblings.len() > MAX_PATH
        || siblings.len() != path_len as usize
        || index >> path_len.min(63) != 0
    {
        return false;
    }
    let Some((last, below)) = siblings.split_last() else {
        return false;
    };
    let mode = Mode::KeyedHash(key);
    let mut hasher = blake3::Hasher::new_keyed(key);
    // The index is below 2^20, so the offset is a chunk boundary that cannot wrap.
    hasher.set_input_offset(index * CHUNK_BYTES as u64).update(opening.chunk.0.as_slice());
    let mut value = hasher.finalize_non_root();
    let mut node = index;
    for sibling in below {
        value = match node & 1 {
            0 => merge_subtrees_non_root(&value, &sibling.0, mode),
            _ => merge_subtrees_non_root(&sibling.0, &value, mode),
        };
        node >>= 1;
    }
    let top = match node & 1 {
        0 => merge_subtrees_root(&value, &last.0, mode),
        _ => merge_subtrees_root(&last.0, &value, mode),
    };
    top == *root
}

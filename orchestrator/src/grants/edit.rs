//! The edit of an `authorized_keys` file: our own lines out and in, every other byte as it was.

use runner_protocol::grant_line::{JOINT, grant_id};
pub use runner_protocol::grant_line::{MAX_FILE_BYTES, grant_ids};

/// What an edit would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The file afterwards.
    pub content: Vec<u8>,
    /// The ids of the grants that were taken out.
    pub removed: Vec<String>,
}

/// Takes out the lines of the grants in `remove`, and puts `add` at the end. A last line without
/// a line break gets one when something follows it, because two lines would become one; when that
/// line is taken out again, the break goes, too.
#[must_use]
pub fn edit(content: &[u8], remove: &dyn Fn(&str) -> bool, add: Option<&str>) -> Edit {
    let mut edit = Edit { content: Vec::with_capacity(content.len() + 1024), removed: Vec::new() };
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        match grant_id(line) {
            Some(id) if remove(&id) => {
                // It had been put behind a line that had no break of its own.
                if line.starts_with(JOINT) && edit.content.last() == Some(&b'\n') {
                    edit.content.pop();
                }
                edit.removed.push(id);
            }
            _ => edit.content.extend_from_slice(line),
        }
    }
    if let Some(line) = add {
        if edit.content.last().is_some_and(|last| *last != b'\n') {
            edit.content.push(b'\n');
            // sshd skips blanks before a line.
            edit.content.extend_from_slice(JOINT);
        }
        edit.content.extend_from_slice(line.as_bytes());
        edit.content.push(b'\n');
    }
    edit
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ours(id: u8) -> String {
        let id = format!("{id:032x}");
        format!("restrict,pty,from=\"10.0.0.1\",expiry-time=\"x\" ssh-ed25519 AAAA orch:{id}")
    }

    fn id(id: u8) -> String {
        format!("{id:032x}")
    }

    #[test]
    fn only_whole_lines_of_ours_count() {
        let line = ours(1);
        let is_ours = |text: &str| !grant_ids(text.as_bytes()).is_empty();
        assert!(is_ours(&format!("{line}\n")));
        for other in [
            format!("# {line}\n"),
            format!("{line} \n"),
            format!("{line}\r\n"),
            format!("{line}0\n"),
            line.clone(),
            line.replace("restrict,pty,from", "restrict,from") + "\n",
            "ssh-ed25519 AAAA orch:00000000000000000000000000000001\n".to_owned(),
        ] {
            assert!(!is_ours(&other), "{other:?}");
        }
    }

    /// Bytes of foreign files: lines of anything, with and without a break at the end.
    fn foreign() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..60),
            Just(b"ssh-ed25519 AAAA me@there".to_vec()),
            Just(b"ssh-rsa AAAA windows\r".to_vec()),
            Just(format!("# {}", ours(1)).into_bytes()),
            Just(b"".to_vec()),
        ];
        (proptest::collection::vec(line, 0..6), any::<bool>()).prop_map(|(lines, ended)| {
            let mut bytes = lines.join(&b'\n');
            if ended {
                bytes.push(b'\n');
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn what_is_put_in_comes_out_and_leaves_no_trace(before in foreign(), count in 1_u8..5) {
            let mut content = before.clone();
            for number in 0..count {
                content = edit(&content, &|_| false, Some(&ours(number))).content;
            }
            prop_assert_eq!(grant_ids(&content).len(), usize::from(count));
            prop_assert!(content.starts_with(&before));
            // In any order.
            for number in (0..count).rev() {
                content = edit(&content, &|found| found == id(number), None).content;
            }
            prop_assert_eq!(content, before);
        }

        #[test]
        fn nothing_to_do_changes_nothing(before in foreign()) {
            let same = edit(&before, &|_| true, None);
            prop_assert_eq!(same.content, before);
            prop_assert!(same.removed.is_empty());
        }
    }
}

//! Commands as data: an argument vector that becomes a command line in one place.

use std::fmt;

use super::quote::push_word;

/// The longest command line that is sent. Linux gives a single argument 128 KiB
/// (`MAX_ARG_STRLEN`), `sshd` passes the whole line as one argument to the login shell, and the
/// frame around it needs some; longer data belongs on standard input.
pub const MAX_LINE_BYTES: usize = 120 * 1024;

/// Prints the marker on both streams, so that whatever rc files printed before is told apart,
/// then becomes the command. `$1` is the marker, the rest is the argument vector.
const FRAME_SCRIPT: &str = r#"echo "$1"; echo "$1" >&2; shift; exec "$@""#;

/// Why a command cannot be sent to a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// A word holds a NUL byte, which ends a C string.
    #[error("word {index} of the command has a NUL byte")]
    Nul {
        /// Which word, the program being 0.
        index: usize,
    },
    /// The quoted line is longer than [`MAX_LINE_BYTES`].
    #[error("the command line has {bytes} bytes, more than {MAX_LINE_BYTES}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
}

/// A program and its arguments, quoted for any POSIX-like login shell and for fish.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteCommand {
    words: Vec<String>,
}

impl RemoteCommand {
    /// A program with its arguments. The program is looked up in the remote `PATH` unless it has
    /// a slash.
    ///
    /// # Errors
    /// A word with a NUL byte, or too much of it.
    pub fn argv<I, S>(program: &str, args: I) -> Result<Self, CommandError>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let mut words = vec![program.to_owned()];
        words.extend(args.into_iter().map(Into::into));
        Self::checked(words)
    }

    /// A constant POSIX script with arguments `$1`, `$2`, ...; data goes into the arguments and
    /// never into the script, which the lifetime enforces.
    ///
    /// # Errors
    /// As [`RemoteCommand::argv`].
    pub fn script<I, S>(script: &'static str, args: I) -> Result<Self, CommandError>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let mut words = vec!["sh".to_owned(), "-c".to_owned(), script.to_owned(), "sh".to_owned()];
        words.extend(args.into_iter().map(Into::into));
        Self::checked(words)
    }

    fn checked(words: Vec<String>) -> Result<Self, CommandError> {
        if let Some(index) = words.iter().position(|word| word.contains('\0')) {
            return Err(CommandError::Nul { index });
        }
        let command = Self { words };
        let bytes = command.line().len();
        if bytes > MAX_LINE_BYTES {
            return Err(CommandError::TooLong { bytes });
        }
        Ok(command)
    }

    /// The command as one line for a shell.
    #[must_use]
    pub fn line(&self) -> String {
        join(self.words.iter().map(String::as_str))
    }

    /// The line whose output starts, on both streams, with `marker` and a newline; what comes
    /// before that is the noise of the login shell's rc files. The command replaces the framing
    /// shell, so its exit status is the line's.
    pub(crate) fn framed_line(&self, marker: &str) -> String {
        join(
            // `exec`, so that a signal ends the login shell too and is told as such.
            ["exec", "sh", "-c", FRAME_SCRIPT, "sh", marker]
                .into_iter()
                .chain(self.words.iter().map(String::as_str)),
        )
    }
}

impl fmt::Debug for RemoteCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteCommand({})", self.line().escape_debug())
    }
}

fn join<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut line = String::new();
    for (index, word) in words.enumerate() {
        if index > 0 {
            line.push(' ');
        }
        push_word(&mut line, word);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::{CommandError, MAX_LINE_BYTES, RemoteCommand};

    #[test]
    fn a_script_takes_its_data_as_arguments() {
        let command = RemoteCommand::script("cat \"$1\"", ["; rm -rf /"]).unwrap();
        assert_eq!(command.line(), "sh -c 'cat \"$1\"' sh '; rm -rf /'");
    }

    #[test]
    fn a_nul_or_too_much_is_refused() {
        assert_eq!(
            RemoteCommand::argv("printf", ["a", "b\0c"]),
            Err(CommandError::Nul { index: 2 })
        );
        let long = "x".repeat(MAX_LINE_BYTES);
        assert_eq!(
            RemoteCommand::argv("printf", [long.as_str()]),
            Err(CommandError::TooLong { bytes: MAX_LINE_BYTES + 7 })
        );
    }

    #[test]
    fn the_frame_quotes_the_command_it_wraps() {
        let command = RemoteCommand::argv("echo", ["a'b"]).unwrap();
        assert!(command.framed_line("MARK").ends_with(" sh MARK echo 'a'\\''b'"));
    }
}

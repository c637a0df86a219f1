//! Whether the runner can be put on a host, what a refusal means, and taking it away again. The
//! upload itself is part of a session's start.

use std::time::Duration;

use super::answer::{self, Answer};
use super::artifact::{Artifact, GlibcVersion, newest_glibc_symbol};
use super::{Error, commands};
use crate::printable::last_line;
use crate::transport::{ExecOutput, ExecRequest, Transport};

/// For one short script.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(60);

/// Room that must be left beside the file: file systems lie about their last blocks.
const SPARE_KIB: u64 = 64;

/// What a purge did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Purged {
    /// How many builds were there.
    pub removed: u64,
    /// The work directory.
    pub work_dir: String,
    /// Entries in it that are not ours and stayed; the directory stays with them.
    pub foreign_entries: u64,
}

/// Refuses a host on which the artifact cannot run, by what the host said of itself.
///
/// # Errors
/// Wrong system or processor, old C library, unwritable directory, too little space.
pub fn check_fit(host: &Answer, artifact: &Artifact) -> Result<(), Error> {
    let needed = format!("Linux {}", artifact.machine);
    if host.get("system") != needed {
        return Err(Error::WrongArch { found: host.get("system").to_owned(), needed });
    }
    // A host that does not say (musl has no getconf of that name) is left to try.
    let libc = host.get("libc").strip_prefix("glibc ").and_then(GlibcVersion::parse);
    if let (Some(found), Some(needed)) = (libc, artifact.needs_glibc)
        && found < needed
    {
        return Err(Error::OldGlibc { found: host.get("libc").to_owned(), needed });
    }
    if host.get("writable") == "no" {
        return Err(Error::NotWritable {
            base: host.get("base").to_owned(),
            detail: format!("{} is not writable", host.get("near")),
        });
    }
    let needed_kib = (artifact.bytes.len() as u64).div_ceil(1024) + SPARE_KIB;
    if let Ok(free) = host.get("free_kib").parse::<u64>()
        && free < needed_kib
    {
        return Err(Error::NoSpace {
            base: host.get("base").to_owned(),
            free_kib: free.to_string(),
            detail: format!("the runner needs {needed_kib} KiB"),
        });
    }
    Ok(())
}

/// Removes every build of ours and each directory that we made, if nothing else is in it.
///
/// # Errors
/// The command failed or gave no answer.
pub async fn purge(transport: &dyn Transport, work_dir: Option<&str>) -> Result<Purged, Error> {
    let command = commands::purge(work_dir).map_err(Error::Command)?;
    let request = ExecRequest::new(command).deadline(SCRIPT_TIMEOUT);
    let request = request.caps(answer::MAX_BYTES, answer::MAX_BYTES);
    let output = transport
        .exec(request)
        .await
        .map_err(|source| Error::Transport { operation: "purge the host", source })?;
    let answer =
        Answer::find(&output.stdout).map(|(answer, _)| answer).ok_or_else(|| no_answer(&output))?;
    Ok(Purged {
        removed: answer.get("removed").parse().unwrap_or(0),
        work_dir: answer.get("base").to_owned(),
        foreign_entries: answer.get("left").parse().unwrap_or(0),
    })
}

fn no_answer(output: &ExecOutput) -> Error {
    Error::NoAnswer { status: output.status.to_string(), said: last_line(&output.stderr) }
}

/// Turns the start script's `failed=` into the error it means. The words of the host's tools are
/// in the C locale.
pub(super) fn refusal(answer: &Answer) -> Error {
    let base = answer.get("base").to_owned();
    let detail = answer.get("detail").to_owned();
    let has = |words: &[&str]| words.iter().any(|word| detail.contains(word));
    if has(&["No space left", "Disk quota exceeded", "out of inodes"]) {
        return Error::NoSpace { base, free_kib: answer.get("free_kib").to_owned(), detail };
    }
    match answer.get("failed") {
        "mkdir" | "owner" | "write" if has(&["not found"]) => Error::MissingProgram { detail },
        // A cut stream makes gzip complain about its end: that is the upload, not the directory.
        "write"
            if has(&[
                "unexpected end of file",
                "crc error",
                "format violated",
                "invalid compressed",
            ]) =>
        {
            Error::Damaged { detail }
        }
        "mkdir" | "owner" | "write" => Error::NotWritable { base, detail },
        "run" if has(&["Permission denied", "ermission"]) => Error::NoExec { base, detail },
        "run" => match newest_glibc_symbol(detail.as_bytes()) {
            Some(needed) => Error::OldGlibc { found: "of an unknown version".to_owned(), needed },
            None => Error::DoesNotStart { detail },
        },
        _ => Error::Damaged { detail },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(lines: &str) -> Answer {
        Answer::find(format!("{lines}\nend\n").as_bytes()).unwrap().0
    }

    fn artifact() -> Artifact {
        Artifact {
            path: "remote-runner".into(),
            bytes: vec![0; 1024 * 1024],
            gzip: Vec::new(),
            sha256: "0".repeat(64),
            machine: "x86_64",
            needs_glibc: GlibcVersion::parse("2.34"),
        }
    }

    const FIT: &str = "system=Linux x86_64\nlibc=glibc 2.36\nwritable=yes\nfree_kib=9000\nbase=/b";

    #[test]
    fn a_host_that_fits_passes() {
        check_fit(&answer(FIT), &artifact()).unwrap();
        check_fit(&answer(&FIT.replace("glibc 2.36", "")), &artifact()).unwrap();
    }

    #[test]
    fn each_misfit_has_its_own_error() {
        use crate::reason::Reason;
        for (from, to, reason) in [
            ("Linux", "Darwin", Reason::WrongArch),
            ("x86_64", "riscv64", Reason::WrongArch),
            ("glibc 2.36", "glibc 2.31", Reason::OldGlibc),
            ("writable=yes", "writable=no", Reason::ReadOnly),
            ("9000", "1000", Reason::NoSpace),
        ] {
            let error = check_fit(&answer(&FIT.replace(from, to)), &artifact()).unwrap_err();
            assert_eq!(error.reason(), reason, "{error}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn each_refusal_has_its_own_error() {
        use crate::reason::Reason;
        for (failed, detail, reason) in [
            ("write", "gzip: stdout: No space left on device", Reason::NoSpace),
            (
                "mkdir",
                "mkdir: cannot create directory '/b': Read-only file system",
                Reason::ReadOnly,
            ),
            (
                "owner",
                "chmod: changing permissions of '/b': Operation not permitted",
                Reason::ReadOnly,
            ),
            ("write", "gzip: stdin: unexpected end of file", Reason::Verify),
            ("write", "sh: 76: head: not found", Reason::Exec),
            ("digest", "abc", Reason::Verify),
            ("run", "sh: 1: /b/x: Permission denied", Reason::NoExec),
            ("run", "/b/x: /lib/libc.so.6: version `GLIBC_2.34' not found", Reason::OldGlibc),
            ("run", "/b/x: libcuda.so: cannot open shared object file", Reason::Runner),
        ] {
            let error = refusal(&answer(&format!("failed={failed}\ndetail={detail}\nbase=/b")));
            assert_eq!(error.reason(), reason, "{error}");
        }
    }
}

//! The only file that prints. Results go to standard output, everything else to standard error.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the file that prints")]

use std::error::Error as StdError;
use std::io::{self, IsTerminal as _, Write as _};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hyper::body::Bytes;
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;

use super::failure::Failure;
use crate::docker::OutputStream;
use crate::error_chain::causes;
use crate::fleet::containers::Sink;
use crate::printable::printable;

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The few colours that mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Wants attention.
    Warn,
    /// Failed.
    Bad,
    /// Less important.
    Dim,
    /// A heading.
    Bold,
}

impl Tone {
    /// The SGR parameter (ECMA-48) of the tone.
    fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "31",
            Self::Dim => "2",
            Self::Bold => "1",
        }
    }
}

/// Where output goes and how it looks.
#[derive(Debug)]
pub struct Report {
    json: bool,
    quiet: bool,
    stdout_color: bool,
    stderr_color: bool,
}

impl Report {
    /// Decides about colours once, by the option, NO_COLOR (no-color.org) and the terminals.
    pub fn new(json: bool, quiet: bool, choice: ColorChoice) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let color = |terminal: bool| match choice {
            ColorChoice::Auto => terminal && !plain,
            ColorChoice::Always => true,
            ColorChoice::Never => false,
        };
        Self {
            json,
            quiet,
            stdout_color: color(std::io::stdout().is_terminal()),
            stderr_color: color(std::io::stderr().is_terminal()),
        }
    }

    /// Whether the user wants JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether the user wants only what is wrong.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether a live view has a terminal to be on, and nobody asked for silence.
    pub fn may_draw(&self) -> bool {
        !self.quiet
            && !self.json
            && std::io::stderr().is_terminal()
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }

    /// Whether standard error has colours.
    pub fn stderr_color(&self) -> bool {
        self.stderr_color
    }

    /// Whether the user can be asked something.
    pub fn may_ask(&self) -> bool {
        !self.json && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// A text of the result.
    pub fn result(&self, text: &str) {
        if !self.json {
            write_stdout(&format!("{text}\n"));
        }
    }

    /// A raw text that is the whole result (a generated file, a completion script).
    pub fn raw(&self, text: &str) {
        write_stdout(text);
    }

    /// Where the output of a container goes: both streams as they are, or with `--json` a line for
    /// each piece, its bytes in base64.
    pub fn sink(&self) -> Box<dyn Sink> {
        if self.json { Box::new(JsonSink) } else { Box::new(RawSink::new()) }
    }

    /// One JSON value on one line; nothing unless `--json`.
    pub fn json(&self, value: &impl Serialize) {
        if self.json {
            match serde_json::to_string(value) {
                Ok(text) => write_stdout(&format!("{text}\n")),
                Err(error) => eprintln!("error: cannot write JSON: {error}"),
            }
        }
    }

    /// A word to the user beside the result: silent with `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// A warning: shown even with `--quiet`.
    pub fn warning(&self, text: &str) {
        eprintln!("{} {text}", self.err_tone("warning:", Tone::Warn));
    }

    /// A table of the result, one row a line, columns aligned, no lines drawn.
    pub fn table(&self, headers: &[&str], rows: &[Vec<(String, Option<Tone>)>]) {
        use comfy_table::{ContentArrangement, Table, presets};
        if self.json {
            return;
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        // Only a terminal has a width; in a pipe a row stays one line.
        if let Some(width) = table.width() {
            table.set_width(width);
            table.set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        if self.stdout_color {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        if headers.iter().any(|text| !text.is_empty()) {
            table.set_header(headers.iter().map(|text| styled(text, Some(Tone::Bold))));
        }
        for row in rows {
            table.add_row(row.iter().map(|(text, tone)| styled(&printable(text), *tone)));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let lines: Vec<String> =
            table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        write_stdout(&lines.concat());
    }

    /// The error that ends the command: as a JSON document with `--json`, and always in words.
    pub fn failure(&self, failure: &Failure) {
        if self.json {
            let source = failure.source.as_deref();
            let mut chain: Vec<String> = source.iter().map(ToString::to_string).collect();
            chain.extend(source.map(|source| causes(source)).unwrap_or_default());
            self.json(&serde_json::json!({
                "ok": false,
                "reason": failure.reason,
                "message": printable(&failure.what),
                "causes": chain,
                "hint": failure.hint,
                "exit_status": failure.exit().code(),
            }));
        }
        match &failure.source {
            Some(source) => {
                self.heading(&failure.what);
                eprintln!("  caused by: {}", indented(&source.to_string()));
                self.causes(&causes(source.as_ref()), failure.hint.as_deref());
            }
            None => {
                self.heading(&failure.what);
                self.causes(&[], failure.hint.as_deref());
            }
        }
    }

    /// An error with its causes, in words.
    pub fn error(&self, what: &str, error: &(dyn StdError + 'static), hint: Option<&str>) {
        self.heading(what);
        eprintln!("  caused by: {}", indented(&error.to_string()));
        self.causes(&causes(error), hint);
    }

    /// An error whose causes are known as text.
    pub fn trouble(&self, what: &str, causes: &[String], hint: Option<&str>) {
        self.heading(what);
        self.causes(causes, hint);
    }

    fn heading(&self, what: &str) {
        eprintln!("{} {}", self.err_tone("error:", Tone::Bad), indented(what));
    }

    fn causes(&self, causes: &[String], hint: Option<&str>) {
        for cause in causes {
            eprintln!("  caused by: {}", indented(cause));
        }
        if let Some(hint) = hint {
            eprintln!("\n{} {}", self.err_tone("hint:", Tone::Good), indented(hint));
        }
    }

    /// The text in a tone, if standard output has colours.
    pub fn out_tone(&self, text: &str, tone: Tone) -> String {
        paint(text, tone, self.stdout_color)
    }

    /// The text in a tone, if standard error has colours.
    pub fn err_tone(&self, text: &str, tone: Tone) -> String {
        paint(text, tone, self.stderr_color)
    }

    /// Asks a yes-or-no question on the terminal; anything but `yes` or `y` is no.
    pub fn ask(&self, question: &str) -> bool {
        eprint!("{question} [y/N] ");
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer).is_ok();
        read && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
    }
}

/// A table's cell: the table itself must know the tone, since it measures the text.
fn styled(text: &str, tone: Option<Tone>) -> comfy_table::Cell {
    use comfy_table::{Attribute, Cell, Color};
    let cell = Cell::new(text);
    match tone {
        None => cell,
        Some(Tone::Good) => cell.fg(Color::DarkGreen),
        Some(Tone::Warn) => cell.fg(Color::DarkYellow),
        Some(Tone::Bad) => cell.fg(Color::DarkRed),
        Some(Tone::Dim) => cell.add_attribute(Attribute::Dim),
        Some(Tone::Bold) => cell.add_attribute(Attribute::Bold),
    }
}

fn paint(text: &str, tone: Tone, color: bool) -> String {
    if color { format!("\x1b[{}m{text}\x1b[0m", tone.code()) } else { text.to_owned() }
}

/// Text of several lines stays under its first line; control characters are gone.
fn indented(text: &str) -> String {
    text.lines().map(printable_line).collect::<Vec<_>>().join("\n    ")
}

/// As [`printable`], with the indentation kept: carets under quoted lines must stay in place.
fn printable_line(line: &str) -> String {
    let indent: String = line.chars().take_while(|c| *c == ' ').collect();
    indent + &printable(line)
}

/// Passes a container's output on as it is. Waits for whoever reads it.
struct RawSink {
    out: tokio::io::Stdout,
    err: tokio::io::Stderr,
}

impl RawSink {
    fn new() -> Self {
        Self { out: tokio::io::stdout(), err: tokio::io::stderr() }
    }
}

impl Sink for RawSink {
    fn write(&mut self, stream: OutputStream, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        async move {
            match stream {
                OutputStream::Stdout => {
                    self.out.write_all(&bytes).await?;
                    self.out.flush().await
                }
                OutputStream::Stderr => {
                    self.err.write_all(&bytes).await?;
                    self.err.flush().await
                }
            }
        }
        .boxed()
    }
}

/// Passes a container's output on as JSON lines.
struct JsonSink;

impl Sink for JsonSink {
    fn write(&mut self, stream: OutputStream, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        use base64::Engine as _;
        let stream = match stream {
            OutputStream::Stdout => "stdout",
            OutputStream::Stderr => "stderr",
        };
        let base64 = base64::engine::general_purpose::STANDARD.encode(&bytes);
        let line = serde_json::json!({ "event": "output", "stream": stream, "base64": base64 });
        async move {
            let mut stdout = tokio::io::stdout();
            stdout.write_all(format!("{line}\n").as_bytes()).await?;
            stdout.flush().await
        }
        .boxed()
    }
}

/// A closed pipe (`| head`) is the reader's wish and no error.
fn write_stdout(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    if let Err(error) = written
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        eprintln!("error: cannot write to standard output: {error}");
    }
}

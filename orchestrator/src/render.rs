//! The templates of the binary, rendered with minijinja.
//!
//! Templates lie in `templates/` and are compiled in. Values go into TOML only through the `toml`
//! filter and into unit files through the `systemd` filter, so that no text of a user ends a string
//! early.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value};
use serde::Serialize;

/// A template of the binary could not be rendered: a defect of the template or of its caller.
#[derive(Debug, thiserror::Error)]
#[error("cannot render the template {name}")]
pub struct RenderError {
    /// The template.
    pub name: &'static str,
    /// Why.
    #[source]
    pub source: minijinja::Error,
}

/// A template that is compiled in.
#[derive(Debug, Clone, Copy)]
pub struct Template {
    name: &'static str,
    source: &'static str,
}

/// The fleet file that `init` writes.
pub const INIT_FLEET: Template = Template {
    name: "init/fleet.toml.j2",
    source: include_str!("../../templates/init/fleet.toml.j2"),
};

/// The dashboard of the operator API; its name makes every value in it escaped HTML.
pub const DASHBOARD: Template = Template {
    name: "api/dashboard.html",
    source: include_str!("../../templates/api/dashboard.html.j2"),
};

/// The systemd unit of `serve`.
pub const SERVE_UNIT: Template = Template {
    name: "serve/orchestrator.service.j2",
    source: include_str!("../../templates/serve/orchestrator.service.j2"),
};

/// The systemd unit of a sweep.
pub const SWEEP_SERVICE: Template =
    Template { name: "sweep/service.j2", source: include_str!("../../templates/sweep/service.j2") };

/// The systemd timer of a sweep.
pub const SWEEP_TIMER: Template =
    Template { name: "sweep/timer.j2", source: include_str!("../../templates/sweep/timer.j2") };

/// The block of a sweep in a crontab.
pub const SWEEP_CRONTAB: Template =
    Template { name: "sweep/crontab.j2", source: include_str!("../../templates/sweep/crontab.j2") };

/// Renders a template.
///
/// # Errors
/// [`RenderError`]; a name that the context does not have is one.
pub fn render(template: Template, context: impl Serialize) -> Result<String, RenderError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let failed = |source| RenderError { name: template.name, source };
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(true)
        .build()
        .map_err(failed)?;
    environment.set_syntax(syntax);
    environment.add_filter("toml", |text: String| Value::from_safe_string(toml_string(&text)));
    environment.add_filter("systemd", |text: String| Value::from_safe_string(systemd_word(&text)));
    let context = Value::from(Serde(context));
    environment.render_named_str(template.name, template.source, context).map_err(failed)
}

/// A text as one word of a unit file (systemd.syntax(7), systemd.service(5)): in quotes, with what
/// systemd would expand doubled.
fn systemd_word(text: &str) -> String {
    let mut word = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => word.extend(['\\', c]),
            '%' | '$' => word.extend([c, c]),
            c => word.push(c),
        }
    }
    word.push('"');
    word
}

/// A text as a TOML string with its quotes.
pub(crate) fn toml_string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

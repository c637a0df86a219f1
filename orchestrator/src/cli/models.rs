//! `--models`: the operator's own table in the place of the built-in one.

use std::path::Path;
use std::sync::Arc;

use pow_kernels::ModelTable;

use super::failure::Failure;

/// More than any table has, in bytes.
const MAX_TABLE_BYTES: u64 = 1024 * 1024;

/// The table of a file, or the built-in one, and where it is from in words.
pub fn load(path: Option<&Path>) -> Result<(Arc<ModelTable>, String), Failure> {
    let Some(path) = path else {
        return Ok((Arc::new(ModelTable::embedded().clone()), "that is built in".to_owned()));
    };
    let shown = path.display().to_string();
    let cannot = || Failure::user(format!("cannot use the model table {shown}"));
    let text = read(path).map_err(|error| cannot().because(error))?;
    let table = ModelTable::parse(&text).map_err(|error| {
        cannot().because(error).hint("config/gpu-models.toml is the built-in one, explained")
    })?;
    Ok((Arc::new(table), shown))
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_TABLE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

//! The YAML form of an Ansible inventory.

use serde_json::{Map, Value};

use super::ImportError;
use super::ansible::{Inventory, Vars};

/// Groups inside groups deeper than this are a mistake or an attack.
const MAX_DEPTH: usize = 32;

pub(super) fn parse(text: &str) -> Result<Inventory, ImportError> {
    let document: Option<Map<String, Value>> =
        serde_saphyr::from_str(text).map_err(|error| ImportError::Yaml(first_line(&error)))?;
    let mut inventory = Inventory::default();
    for (name, group) in document.unwrap_or_default() {
        read_group(&mut inventory, &name, &group, 0)?;
    }
    Ok(inventory)
}

/// The parser quotes the document, which may hold secrets; its first line says what and where.
fn first_line(error: &serde_saphyr::Error) -> String {
    error.without_snippet().to_string().lines().next().unwrap_or_default().to_owned()
}

fn read_group(
    inventory: &mut Inventory,
    name: &str,
    group: &Value,
    depth: usize,
) -> Result<(), ImportError> {
    if depth > MAX_DEPTH {
        return Err(ImportError::Yaml(format!("groups are nested more than {MAX_DEPTH} deep")));
    }
    inventory.groups.entry(name.to_owned()).or_default();
    for (key, value) in mapping(group, name)? {
        match key.as_str() {
            "hosts" => {
                for (host, vars) in mapping(value, "hosts")? {
                    inventory.add(name, host, texts(mapping(vars, host)?))?;
                }
            }
            "vars" => {
                let vars = texts(mapping(value, "vars")?);
                inventory.groups.entry(name.to_owned()).or_default().vars.extend(vars);
            }
            "children" => {
                for (child, group) in mapping(value, "children")? {
                    read_group(inventory, child, group, depth + 1)?;
                    let parent = inventory.groups.entry(name.to_owned()).or_default();
                    parent.children.insert(child.clone());
                }
            }
            other => {
                let message = format!(
                    "group {name:?} has {other:?}, which is none of hosts, vars and children"
                );
                return Err(ImportError::Yaml(message));
            }
        }
    }
    Ok(())
}

/// A mapping; nothing at all is an empty one.
fn mapping<'v>(
    value: &'v Value,
    what: &str,
) -> Result<impl Iterator<Item = (&'v String, &'v Value)> + use<'v>, ImportError> {
    match value {
        Value::Null => Ok(None.into_iter().flatten()),
        Value::Object(map) => Ok(Some(map.iter()).into_iter().flatten()),
        _ => Err(ImportError::Yaml(format!("{what:?} is no mapping"))),
    }
}

/// Variables as text; lists and mappings in their JSON form, good enough to be named in a comment.
fn texts<'v>(vars: impl Iterator<Item = (&'v String, &'v Value)>) -> Vars {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    vars.map(|(key, value)| (key.clone(), text(value))).collect()
}

//! `${env:NAME}`, `${env:NAME:-default}` and `${file:PATH}` in an option's value or a location. Resolved after parsing; what they
//! stand for is never printed.

use crate::error::Result;
use crate::table::TableDef;

/// How a table's values are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// Everything must be set (`run`).
    Needed,
    /// What is not set is its default, else a placeholder: nothing is connected to (`check`, `demo`).
    Optional,
}

impl Secrets {
    /// The table with every value resolved.
    pub fn resolve(self, table: &TableDef) -> Result<TableDef> {
        let mut resolved = table.clone();
        let mut problems = Vec::new();
        let mut value = |text: &str, what: &str| match self.text(text) {
            Ok(text) => text,
            Err(problem) => {
                problems.push(format!("{what} {problem}"));
                String::new()
            }
        };
        resolved.location = value(&table.location, "LOCATION");
        for (name, text) in &mut resolved.options {
            *text = value(text, &format!("option '{name}'"));
        }
        if problems.is_empty() { Ok(resolved) } else { Err(table.error(problems.join("; "))) }
    }

    /// `text` resolved; what is wrong with it otherwise.
    pub fn text(self, text: &str) -> Result<String, String> {
        let mut done = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (inside, after) = after.split_once('}').ok_or("has '${' without '}'")?;
            done.push_str(before);
            done.push_str(&self.reference(inside)?);
            rest = after;
        }
        done.push_str(rest);
        Ok(done)
    }

    fn reference(self, inside: &str) -> Result<String, String> {
        if let Some(path) = inside.strip_prefix("file:") {
            return match std::fs::read_to_string(path) {
                Ok(text) => Ok(text.trim_end_matches(['\n', '\r']).to_string()),
                Err(_) if self == Secrets::Optional => Ok("unset".to_string()),
                Err(cause) => Err(format!("names the file {path}, which cannot be read: {cause}")),
            };
        }
        let Some(name) = inside.strip_prefix("env:") else {
            return Err(format!("has '${{{inside}}}'; write ${{env:NAME}}, ${{env:NAME:-default}} or ${{file:PATH}}"));
        };
        let (name, default) = name.split_once(":-").map_or((name, None), |(name, default)| (name, Some(default)));
        match (variable(name), default) {
            (Some(value), _) => Ok(value),
            (None, Some(default)) => Ok(default.to_string()),
            (None, None) if self == Secrets::Optional => Ok("unset".to_string()),
            (None, None) => Err(format!("needs the environment variable {name}, which is not set: export {name}=…")),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the one place that may")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_not_set_has_its_default_or_is_named() {
        for (text, resolved) in [
            ("plain", Ok("plain")),
            ("a${env:FALAJ_TEST_NOT_SET:-b}c", Ok("abc")),
            ("${env:FALAJ_TEST_NOT_SET}", Err("export FALAJ_TEST_NOT_SET")),
            ("${enw:X}", Err("write ${env:NAME}")),
            ("${env:X", Err("without '}'")),
            ("${file:/does/not/exist}", Err("cannot be read")),
        ] {
            match (Secrets::Needed.text(text), resolved) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(found), Err(part)) => assert!(found.contains(part), "{found}"),
                (found, expected) => panic!("{text}: {found:?} instead of {expected:?}"),
            }
        }
    }
}

//! Tables into the places of their dead letters, for the commands that read, replay and purge them.

use crate::dead::Kept;
use crate::dead::folder::FolderKept;
use crate::dead::kafka::KafkaKept;
use crate::error::{Error, Kind, Result};
use crate::query::project::Project;
use crate::query::tables::Role;
use crate::secrets::Secrets;
use crate::source::kafka::KafkaOptions;
use crate::table::did_you_mean;

/// The dead letters of every source of `project`, or of the one whose table or topic is `named`. Touches no network yet.
pub fn kept_letters(project: &Project, named: Option<&str>) -> Result<Vec<Box<dyn Kept>>> {
    let mut kept: Vec<Box<dyn Kept>> = Vec::new();
    for table in project.tables_of(Role::Source) {
        let is_named = |location: &str| named.is_none_or(|named| named == table.name || named == location);
        // The location may be a secret's, and those of other tables need not be set.
        if !is_named(&table.location) && !table.location.contains("${") {
            continue;
        }
        // Changes have their letters in a folder, and nobody is connected to.
        let changes = table.stored_as == "POSTGRES";
        let table = if changes { Secrets::Optional } else { Secrets::Needed }.resolve(table)?;
        if !is_named(&table.location) || kept.iter().any(|kept| kept.source() == table.location) {
            continue;
        }
        kept.push(if changes {
            Box::new(FolderKept::new(&project.settings().dead_letters, table.location))
        } else {
            let options = KafkaOptions::from_table(&table)?;
            Box::new(KafkaKept::new(options.brokers, options.kafka, options.topic))
        });
    }
    match named {
        Some(named) if kept.is_empty() => Err(no_source(project, named)),
        _ => Ok(kept),
    }
}

fn no_source(project: &Project, named: &str) -> Error {
    let names: Vec<&str> = project.tables_of(Role::Source).map(|table| table.name.as_str()).collect();
    let hint = match did_you_mean(named, names.iter().copied()) {
        Some(name) => format!("did you mean '{name}'?"),
        None => format!("there are {}", names.join(", ")),
    };
    Error::new(Kind::Usage, format!("--source: there is no source table '{named}'; {hint}"))
}

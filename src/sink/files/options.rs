//! What `CREATE EXTERNAL TABLE … STORED AS PARQUET | JSON` says, checked without touching the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, Schema, SchemaRef};

use super::columns::{check_name, check_partition_type, check_type, file_type};
use crate::error::Result;
use crate::s3::{self, Location};
use crate::table::{Options, TableDef};
use crate::tls::Files;

/// BigQuery reads at most so many partition keys.
const PARTITION_KEYS_MAX: usize = 10;

/// How the rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Parquet as BigQuery loads it.
    Parquet,
    /// One JSON object a line; NULLs are left out.
    Json,
}

impl Format {
    /// The published files' suffix.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Format::Parquet => "parquet",
            Format::Json => "json",
        }
    }
}

/// What happens when the folder has files of another lineage or lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnNewLineage {
    /// The lane stops.
    Stop,
    /// The new result grows out of sight, and takes the place of what is there once the lane has caught up.
    Replace,
    /// Both stay, and rows that are read again are there twice.
    Append,
}

/// A table of files.
///
/// | option | default | means |
/// |---|---|---|
/// | `roll.size` | `128MiB` | an epoch ends when its files hold so much |
/// | `roll.interval` | `30s` | an epoch ends at the latest after so long; the files are visible then |
/// | `on_new_lineage` | `stop` | when the folder has files of another lineage or lane: `stop`; `replace` them by the new result once it is whole; `append` beside them |
/// | `aws.*` | | (`s3://`) as the environment's `AWS_*`, and before it: `aws.endpoint`, `aws.region`, `aws.access_key_id`, `aws.secret_access_key`, … |
/// | `tls.ca` | | (`s3://`) a file with who vouches for the server (PEM); without it the machine's own authorities do |
/// | `emit` | `final` | windows are written once, when they are final; files know nothing else |
#[derive(Debug, Clone)]
pub struct FilesOptions {
    /// The table's name.
    pub table: String,
    /// `LOCATION`, relative to the folder that the process runs in, or absolute; of no use where there is a bucket.
    pub folder: PathBuf,
    /// `LOCATION` that is in a bucket, with who vouches for its server.
    pub(super) bucket: Option<(Location, Files)>,
    /// How the rows are written.
    pub format: Format,
    /// The lane ends an epoch when [`crate::sink::Sink::written_bytes`] reaches this.
    pub roll_size_bytes: u64,
    /// The lane ends an epoch at the latest after this.
    pub roll_interval: Duration,
    /// What happens when the folder has files of another lineage or lane.
    pub on_new_lineage: OnNewLineage,
    /// The columns of `PARTITIONED BY`, in order: name and index in the table.
    pub(super) keys: Vec<(String, usize)>,
    /// The index in the table of each column of the files.
    pub(super) columns: Vec<usize>,
    /// The columns of the files: all nullable, in the table's order, in types that every reader knows.
    pub(super) schema: SchemaRef,
}

impl FilesOptions {
    /// Whether the files are in a bucket and not in a folder.
    pub fn is_in_bucket(&self) -> bool {
        self.bucket.is_some()
    }

    /// Reads and checks a table that is stored as `PARQUET` or `JSON`; all problems at once.
    pub fn from_table(table: &TableDef) -> Result<FilesOptions> {
        let format = match table.stored_as.as_str() {
            "PARQUET" => Format::Parquet,
            "JSON" => Format::Json,
            other => return Err(table.error(format!("STORED AS {other} is not a file format: write PARQUET or JSON"))),
        };
        let mut options = table.options();
        let roll_size_bytes = options.bytes("roll.size", 128 << 20);
        let roll_interval = options.duration("roll.interval", Duration::from_secs(30));
        let on_new_lineage = match options.one_of("on_new_lineage", &["stop", "replace", "append"]) {
            "replace" => OnNewLineage::Replace,
            "append" => OnNewLineage::Append,
            _ => OnNewLineage::Stop,
        };
        options.one_of("emit", &["final"]);
        if roll_size_bytes == 0 || roll_interval.is_zero() {
            options.problem("options 'roll.size' and 'roll.interval' must be greater than 0");
        }
        let bucket = bucket(&table.location, &mut options);
        if bucket.is_some() && on_new_lineage == OnNewLineage::Replace {
            options.problem("'on_new_lineage' 'replace' is for folders: no store lets one result take another's place in one step; give a new LOCATION");
        }
        let is_folder = !table.location.starts_with(s3::SCHEME);
        let folder = if is_folder { folder(&table.location, &mut options) } else { PathBuf::new() };
        let keys = keys(table, &mut options);
        let columns: Vec<usize> =
            (0..table.schema.fields().len()).filter(|index| keys.iter().all(|(_, key)| key != index)).collect();
        if columns.is_empty() {
            options.problem("needs at least one column that is not in PARTITIONED BY, since those are not in the files");
        }
        if format == Format::Parquet {
            check_columns(table, &columns, &mut options);
        }
        options.finish()?;
        let fields: Vec<Field> = columns
            .iter()
            .map(|&index| table.schema.field(index))
            .map(|field| Field::new(field.name(), file_type(field.data_type()), true))
            .collect();
        Ok(FilesOptions {
            table: table.name.clone(),
            folder,
            bucket,
            format,
            roll_size_bytes,
            roll_interval,
            on_new_lineage,
            keys,
            columns,
            schema: Arc::new(Schema::new(fields)),
        })
    }
}

/// `LOCATION` as a place in a bucket, if it is one.
fn bucket(location: &str, options: &mut Options<'_>) -> Option<(Location, Files)> {
    if !location.starts_with(s3::SCHEME) {
        return None;
    }
    let settings = options.with_prefix(s3::OPTIONS);
    let is_tls = !settings.iter().any(|(name, value)| *name == "endpoint" && value.starts_with("http://"));
    let files = Files::of(options, is_tls);
    if files.names_us() {
        options.problem("S3 knows who we are by the access key, so 'tls.cert' and 'tls.key' are of no use");
    }
    match Location::parse(location, &settings) {
        Ok(location) => Some((location, files)),
        Err(problem) => {
            options.problem(problem);
            None
        }
    }
}

/// `LOCATION` as a path. What follows `file://` is taken as it stands.
fn folder(location: &str, options: &mut Options<'_>) -> PathBuf {
    let path = match location.split_once("://") {
        None => location,
        Some(("file", path)) if path.starts_with('/') => path,
        Some(("file", _)) => {
            options.problem(format!("LOCATION '{location}' names a host; write three slashes, as in 'file:///srv/data/'"));
            location
        }
        Some((scheme, _)) => {
            options.problem(format!(
                "LOCATION '{location}': {scheme}:// is not written to; give a folder of this machine, such as 'data/events/', or 's3://bucket/events/'"
            ));
            location
        }
    };
    if path.is_empty() {
        options.problem("needs LOCATION with a folder, such as 'data/events/'");
    }
    PathBuf::from(path)
}

fn keys(table: &TableDef, options: &mut Options<'_>) -> Vec<(String, usize)> {
    let mut keys: Vec<(String, usize)> = Vec::new();
    for name in &table.partition_by {
        let Ok(index) = table.schema.index_of(name) else {
            options.problem(format!("PARTITIONED BY names the column '{name}', which the table does not have"));
            continue;
        };
        if keys.iter().any(|(_, key)| *key == index) {
            options.problem(format!("PARTITIONED BY names the column '{name}' twice"));
            continue;
        }
        if let Err(problem) = check_partition_type(table.schema.field(index).data_type()) {
            options.problem(format!("partition column '{name}': {problem}"));
        }
        keys.push((name.clone(), index));
    }
    if keys.len() > PARTITION_KEYS_MAX {
        options.problem(format!("PARTITIONED BY has {} columns; at most {PARTITION_KEYS_MAX} can be read", keys.len()));
    }
    keys
}

/// BigQuery's rules, which hold for the names of partition columns as well.
fn check_columns(table: &TableDef, columns: &[usize], options: &mut Options<'_>) {
    let fields = table.schema.fields();
    for (index, field) in fields.iter().enumerate() {
        if let Err(problem) = check_name(field.name()) {
            options.problem(format!("column '{}': {problem}", field.name()));
        }
        if let Some(twin) = fields[..index].iter().find(|other| other.name().eq_ignore_ascii_case(field.name())) {
            options.problem(format!(
                "columns '{}' and '{}' differ only by case, which BigQuery takes for one name; rename one",
                twin.name(),
                field.name()
            ));
        }
    }
    for field in columns.iter().map(|&index| &fields[index]) {
        if let Err(problem) = check_type(field.data_type()) {
            options.problem(format!("column '{}': {problem}", field.name()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};

    use super::*;
    use crate::error::Kind;

    fn table(location: &str, columns: &[(&str, DataType)], partition_by: &[&str], options: &[(&str, &str)]) -> TableDef {
        let fields: Vec<Field> = columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), false)).collect();
        TableDef {
            name: "t".to_string(),
            stored_as: "PARQUET".to_string(),
            unbounded: false,
            location: location.to_string(),
            schema: Arc::new(Schema::new(fields)),
            partition_by: partition_by.iter().map(|name| name.to_string()).collect(),
            options: options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<BTreeMap<_, _>>(),
            place: "sinks.sql:1:1".to_string(),
        }
    }

    #[test]
    fn a_plain_table_has_the_documented_defaults() {
        let nanoseconds = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let columns = [("id", DataType::Int64), ("ts", nanoseconds), ("hour", DataType::Int64), ("name", DataType::Utf8View)];
        let options = FilesOptions::from_table(&table("data/x/", &columns, &["hour"], &[])).unwrap();
        assert_eq!((options.roll_size_bytes, options.roll_interval), (128 << 20, Duration::from_secs(30)));
        assert_eq!(
            (options.folder, options.on_new_lineage, options.format),
            (PathBuf::from("data/x/"), OnNewLineage::Stop, Format::Parquet)
        );
        assert_eq!((options.keys, options.columns), (vec![("hour".to_string(), 2)], vec![0, 1, 3]));
        assert!(options.schema.fields().iter().all(|field| field.is_nullable()));
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        assert_eq!(options.schema.field(1).data_type(), &utc);
    }

    #[test]
    fn locations_are_local_folders() {
        let columns = [("id", DataType::Int64)];
        let at = |location| FilesOptions::from_table(&table(location, &columns, &[], &[]));
        assert_eq!(at("file:///srv/x").unwrap().folder, PathBuf::from("/srv/x"));
        for (location, says) in [("gs://b/x", "not written to"), ("file://srv/x", "three slashes"), ("", "needs LOCATION")] {
            let error = at(location).unwrap_err();
            assert_eq!(error.kind(), Kind::Sql);
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn all_problems_are_found_at_once_with_what_to_write_instead() {
        let long = "x".repeat(301);
        let columns = [
            ("a b", DataType::Int64),
            ("_file_x", DataType::Int64),
            (long.as_str(), DataType::Int64),
            ("Up", DataType::Int64),
            ("up", DataType::Interval(IntervalUnit::MonthDayNano)),
            ("at", DataType::Time64(TimeUnit::Nanosecond)),
            ("big", DataType::UInt64),
            ("money", DataType::Decimal256(76, 39)),
            ("share", DataType::Float64),
        ];
        let options = [("on_new_lineage", "replce"), ("roll.size", "0"), ("emit", "latest"), ("rol.interval", "1s")];
        let error = FilesOptions::from_table(&table("x", &columns, &["share", "missing"], &options)).unwrap_err().to_string();
        for says in [
            "column 'a b': a name may have only letters, digits and _",
            "column '_file_x': BigQuery keeps names that begin with _FILE_",
            "at most 300",
            "'Up' and 'up' differ only by case",
            "column 'up': an INTERVAL",
            "column 'at': a TIME",
            "column 'big'",
            "column 'money'",
            "partition column 'share'",
            "'missing', which the table does not have",
            "'on_new_lineage' is 'replce'; it must be one of stop, replace, append",
            "'roll.size'",
            "'emit' is 'latest'",
            "did you mean 'roll.interval'",
        ] {
            assert!(error.contains(says), "{says} is not in: {error}");
        }
    }

    #[test]
    fn partition_columns_are_at_most_ten_and_not_all() {
        let names: Vec<String> = (0..11).map(|number| format!("k{number}")).collect();
        let columns: Vec<(&str, DataType)> = names.iter().map(|name| (name.as_str(), DataType::Int64)).collect();
        let keys: Vec<&str> = names.iter().map(String::as_str).collect();
        let error = FilesOptions::from_table(&table("x", &columns, &keys, &[])).unwrap_err().to_string();
        assert!(error.contains("at most 10") && error.contains("at least one column"), "{error}");
        assert!(FilesOptions::from_table(&table("x", &columns, &keys[..10], &[])).is_ok());
    }
}

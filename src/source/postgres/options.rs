//! What a `STORED AS POSTGRES` table of changes says. Pure: connects to nothing.

use std::fmt;

use arrow::datatypes::DataType;

use crate::debezium;
use crate::error::Result;
use crate::postgres::Address;
use crate::source::watermark::WatermarkOptions;
use crate::table::{Options, TableDef};

/// Whether a column's type can hold what it is for.
type Fits = fn(&DataType) -> bool;

/// The columns that are made of the change itself, with whether a type can hold them.
const META: [(&str, Fits, &str); 7] = [
    ("_op", is_text, "VARCHAR"),
    ("_lsn", is_long, "BIGINT"),
    ("_commit_lsn", is_long, "BIGINT"),
    ("_commit_ts", is_time, "TIMESTAMP"),
    ("_xid", is_long, "BIGINT"),
    ("_unchanged", is_text, "VARCHAR"),
    (debezium::COLUMN, is_text, "VARCHAR"),
];

/// What becomes of the rows that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Snapshot {
    /// They come first, then the changes.
    Initial,
    /// Only changes come.
    Never,
    /// They come, and no changes.
    Only,
}

/// The options of an `UNBOUNDED` Postgres table, read and checked.
#[derive(Clone)]
pub struct PostgresOptions {
    /// The table's name in SQL.
    pub(super) name: String,
    /// `file:line:column` of the declaration.
    pub(super) place: String,
    pub(super) address: Address,
    /// The table in Postgres.
    pub(super) schema: String,
    pub(super) table: String,
    pub(super) slot: String,
    pub(super) publication: String,
    pub(super) snapshot: Snapshot,
    /// Whether every change is a row, or new rows only.
    pub all_changes: bool,
    /// What begins with `watermark.`.
    pub watermark: WatermarkOptions,
    /// The declared columns that the table must have.
    pub(super) columns: Vec<(String, DataType)>,
}

impl PostgresOptions {
    /// Reads the options of `table`; `LOCATION` is `schema.table`.
    ///
    /// | option | default | means |
    /// |---|---|---|
    /// | `url` | | `postgres://user:password@host:port/database`, or with a folder as host for a Unix socket; with `?sslmode=verify-full&sslrootcert=PATH` over TLS (`sslcert`, `sslkey`: who we are); required |
    /// | `slot` | falaj | the replication slot: made when it is missing, and shared by all tables that name it |
    /// | `publication` | falaj | made when it is missing; the table is added to it |
    /// | `snapshot` | never | `initial`: the rows that are there come first; `only`: they come, and no changes (no slot is made for such tables) |
    /// | `changes` | inserts | or `all`: updates, deletes and truncates are rows too; then declare `_op VARCHAR` |
    /// | `watermark.*` | | as of a Kafka table |
    pub fn from_table(table: &TableDef) -> Result<Self> {
        let mut options = table.options();
        let url = options.required("url", "postgres://user:password@localhost:5432/database");
        let address = address(&mut options, url);
        let slot = options.text("slot").unwrap_or("falaj").to_string();
        if slot.is_empty()
            || slot.len() > 63
            || !slot.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        {
            options.problem(format!("option 'slot' is '{slot}'; a slot's name has lower-case letters, digits and _ only"));
        }
        let publication = options.text("publication").unwrap_or("falaj").to_string();
        if publication.is_empty() || publication.contains([',', ' ']) {
            options.problem(format!("option 'publication' is '{publication}'; a name without commas and blanks is needed"));
        }
        let snapshot = match options.one_of("snapshot", &["never", "initial", "only"]) {
            "initial" => Snapshot::Initial,
            "only" => Snapshot::Only,
            _ => Snapshot::Never,
        };
        let all_changes = options.one_of("changes", &["inserts", "all"]) == "all";
        let watermark = WatermarkOptions::read(&mut options, table);
        let mut columns = Vec::new();
        for field in table.schema.fields() {
            match META.iter().find(|(name, ..)| name == field.name()) {
                Some((name, fits, wanted)) if !fits(field.data_type()) => {
                    options.problem(format!("column '{name}' must be {wanted}"));
                }
                Some(_) => {}
                None => columns.push((field.name().clone(), field.data_type().clone())),
            }
        }
        let says_what = ["_op", debezium::COLUMN].iter().any(|name| table.schema.field_with_name(name).is_ok());
        if all_changes && !says_what {
            options.problem("with 'changes' 'all' an update and a delete are rows like any other: declare the column _op VARCHAR, and filter by it");
        }
        let (schema, name) = match table.location.split_once('.') {
            Some((schema, name)) => (schema.to_string(), name.to_string()),
            None => ("public".to_string(), table.location.clone()),
        };
        if schema.is_empty() || name.is_empty() || name.contains('.') {
            options.problem(format!(
                "LOCATION '{}' is no table of Postgres: write 'schema.table', for instance 'public.events'",
                table.location
            ));
        }
        options.finish()?;
        Ok(Self {
            name: table.name.clone(),
            place: table.place.clone(),
            address,
            schema,
            table: name,
            slot,
            publication,
            snapshot,
            all_changes,
            watermark,
            columns,
        })
    }

    /// The table's name in SQL.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `schema.table`.
    pub fn location(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        self.address.config.get_dbname().or(self.address.config.get_user()).unwrap_or("postgres")
    }

    /// The replication slot's name.
    pub fn slot(&self) -> &str {
        &self.slot
    }

    /// The name under which the slot's marks are kept.
    pub(super) fn keeper(&self) -> String {
        format!("{}.slot", self.slot)
    }

    /// Tables that have the same are read over one slot.
    pub fn same_slot(&self, other: &Self) -> bool {
        self.slot == other.slot && self.address == other.address
    }

    /// `Postgres at host:port`.
    pub(super) fn server(&self) -> String {
        self.address.server()
    }
}

fn address(options: &mut Options<'_>, url: &str) -> Address {
    let mut address = Address::read(url).unwrap_or_else(|problem| {
        options.problem(problem);
        Address::default()
    });
    address.config.connect_timeout(super::CONNECT_TIMEOUT);
    address
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_long(data_type: &DataType) -> bool {
    *data_type == DataType::Int64
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..))
}

/// Without the url, which may hold a password.
impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("name", &self.name)
            .field("table", &self.location())
            .field("slot", &self.slot)
            .field("publication", &self.publication)
            .finish()
    }
}

//! What a `STORED AS REDIS` table says, checked against its columns. Pure: connects to nothing.

use std::time::Duration;

use arrow::datatypes::{DataType, Schema};

use super::server::{Form, Server};
use super::slot;
use crate::error::Result;
use crate::table::{Options, TableDef, parse_duration};

/// A checked Redis table. `Debug` leaves the address out, which may hold a password.
#[derive(Clone)]
pub struct RedisOptions {
    /// The table's name, for messages.
    pub(super) table: String,
    /// `LOCATION`: the board's key, or what the rows' keys begin with.
    pub(super) key: String,
    pub(super) server: Server,
    pub(super) shape: Shape,
    /// How long board and fence outlive the last epoch; zero: for ever.
    pub(super) ttl: Duration,
}

impl std::fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { table, key, shape, ttl, server: _ } = self;
        f.debug_struct("RedisOptions")
            .field("table", table)
            .field("key", key)
            .field("shape", shape)
            .field("ttl", ttl)
            .finish_non_exhaustive()
    }
}

/// What a row becomes.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// A member of one sorted set; the indexes of the two columns.
    Zset { member: usize, score: usize },
    /// A hash of its own under `LOCATION:<key>`; the index of the key column and the names of all columns.
    Hash { key: usize, columns: Vec<String> },
}

impl RedisOptions {
    /// Reads the options of `table`:
    ///
    /// | option | means |
    /// |---|---|
    /// | `url` | `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS; required. Of a cluster or of sentinels it may name several: `host:port,host:port` |
    /// | `cluster` | `true`: the hosts are nodes of a cluster, which names the others. A hash's `LOCATION` then needs a `{hash tag}` |
    /// | `sentinel` | the name of a master: the hosts are sentinels, which know where it is; user, password and db of `url` are the master's |
    /// | `sentinel.user`, `sentinel.password` | what the sentinels themselves ask for; without it they are asked without a password |
    /// | `tls.ca` | a file with who vouches for the server (PEM); without it the machine's own authorities do |
    /// | `tls.cert`, `tls.key` | files with who we are, and the key that proves it |
    /// | `type` | `zset` (the default): one sorted set at `LOCATION`; `hash`: one hash for each row at `LOCATION:<key>` |
    /// | `member`, `score` | (zset) the columns; a member is text or a whole number, a score any number |
    /// | `key` | (hash) the column; the others are fields |
    /// | `ttl` | how long it stays after the last epoch; `off`: for ever. 5m for a zset, `off` for hashes |
    ///
    /// All problems are found at once and named with the statement's place.
    pub fn from_table(table: &TableDef) -> Result<Self> {
        let mut options = table.options();
        let url = options.required("url", "redis://localhost:6379");
        let server = Server::read(&mut options, url);
        let kind = options.one_of("type", &["zset", "hash"]);
        let shape = if kind == "zset" { zset(&mut options, &table.schema) } else { hash(&mut options, &table.schema) };
        let ttl = ttl(&mut options, if kind == "zset" { Duration::from_secs(300) } else { Duration::ZERO });
        if table.location.is_empty() {
            options.problem("LOCATION is empty; it must be the board's key, for instance 'top_content'");
        }
        if server.as_ref().is_some_and(|server| server.form == Form::Cluster) {
            one_slot(&mut options, &table.location, &shape);
        }
        options.finish()?;
        let server = server.ok_or_else(|| table.error("option 'url' cannot be read"))?;
        Ok(Self { table: table.name.clone(), key: table.location.clone(), server, shape, ttl })
    }

    /// Whether the table takes whole boards (`emit 'latest'`); hashes take rows and changes only.
    pub fn takes_boards(&self) -> bool {
        matches!(self.shape, Shape::Zset { .. })
    }
}

/// Whether all keys of the table come into one slot of a cluster.
fn one_slot(options: &mut Options<'_>, location: &str, shape: &Shape) {
    if matches!(shape, Shape::Hash { .. }) && slot::tag(location).is_none() {
        options.problem(format!(
            "many hashes are written at a time, and a cluster takes only keys of one slot: give LOCATION a hash tag, '{{{location}}}'"
        ));
    } else if !slot::has_neighbours(location) {
        options
            .problem("LOCATION has a '}' that ends no {hash tag}: a cluster would have the board and its fence in two slots");
    }
}

fn zset(options: &mut Options<'_>, schema: &Schema) -> Shape {
    let member = column(options, schema, "member", "content_id", is_text_or_integer, "text or a whole number");
    let score = column(options, schema, "score", "engagements", DataType::is_numeric, "a number");
    Shape::Zset { member, score }
}

fn hash(options: &mut Options<'_>, schema: &Schema) -> Shape {
    let key = column(options, schema, "key", "id", is_text_or_integer, "text or a whole number");
    if schema.fields().len() < 2 {
        options.problem("a hash needs a column besides its key");
    }
    for field in schema.fields().iter().filter(|field| field.data_type().is_nested()) {
        options.problem(format!(
            "column '{}' is {}; a hash field holds text, numbers and times",
            field.name(),
            field.data_type()
        ));
    }
    Shape::Hash { key, columns: schema.fields().iter().map(|field| field.name().clone()).collect() }
}

/// The index of the column that option `name` names, or 0 with a problem noted.
fn column(
    options: &mut Options<'_>,
    schema: &Schema,
    name: &'static str,
    example: &str,
    fits: fn(&DataType) -> bool,
    what: &str,
) -> usize {
    let wanted = options.required(name, example);
    if wanted.is_empty() {
        return 0;
    }
    let Some((index, field)) = schema.column_with_name(wanted) else {
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        options.problem(format!("option '{name}' is '{wanted}', which is no column; there are {}", columns.join(", ")));
        return 0;
    };
    if !fits(field.data_type()) {
        options.problem(format!("option '{name}': column '{wanted}' is {}; it must be {what}", field.data_type()));
    }
    index
}

fn is_text_or_integer(data_type: &DataType) -> bool {
    data_type.is_integer() || data_type.is_string()
}

fn ttl(options: &mut Options<'_>, default: Duration) -> Duration {
    match options.text("ttl") {
        None => default,
        Some("off") => Duration::ZERO,
        Some(text) => parse_duration(text).filter(|ttl| ttl.as_millis() > 0).unwrap_or_else(|| {
            options.problem(format!("option 'ttl' is '{text}'; it must be a duration such as '5m', or 'off'"));
            default
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::datatypes::Field;

    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<RedisOptions> {
        let columns = [("id", DataType::Utf8View), ("n", DataType::Int64), ("day", DataType::Date32)];
        RedisOptions::from_table(&TableDef {
            name: "top".into(),
            stored_as: "REDIS".into(),
            unbounded: false,
            location: "top".into(),
            schema: Arc::new(Schema::new(columns.map(|(name, kind)| Field::new(name, kind, true)).to_vec())),
            partition_by: vec![],
            options: options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect::<BTreeMap<_, _>>(),
            place: "sinks.sql:1:1".into(),
        })
    }

    #[test]
    fn wrong_options_are_named_all_at_once_and_the_password_is_not() {
        for (options, says) in [
            (vec![("url", "redis://h"), ("member", "id"), ("score", "n")], ""),
            (vec![("url", "redis://h"), ("type", "hash"), ("key", "id")], ""),
            (vec![("url", "redis://h"), ("member", "id"), ("score", "id")], "'id' is Utf8View; it must be a number"),
            (vec![("url", "redis://h"), ("member", "day"), ("score", "n")], "must be text or a whole number"),
            (vec![("url", "redis://h"), ("member", "idd"), ("score", "n")], "which is no column; there are id, n, day"),
            (vec![("member", "id"), ("score", "n")], "needs the option 'url'"),
            (vec![("url", "redis://h"), ("member", "id"), ("score", "n"), ("tll", "5m")], "did you mean 'ttl'?"),
            (vec![("url", "redis://h"), ("member", "id"), ("score", "n"), ("ttl", "5 apples")], "such as '5m', or 'off'"),
            (vec![("url", "http://u:secret@h"), ("member", "id"), ("score", "n")], "option 'url' must be like"),
            (vec![("url", "redis://u:secret@h:x,i"), ("type", "hash"), ("key", "id")], "option 'url' must be like"),
        ] {
            let said = read(&options).map(|_| ()).map_or_else(|error| error.chain(), |()| String::new());
            assert!(said.contains(says) && (says.is_empty() == said.is_empty()), "{options:?}: {said}");
            assert!(!said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn a_cluster_and_sentinels_are_hosts_of_one_url() {
        let read = |url: &str, more: &[(&str, &str)]| {
            let options = [&[("url", url), ("member", "id"), ("score", "n")], more].concat();
            read(&options).map_or_else(|error| error.chain(), |options| options.server.to_string())
        };
        let (cluster, sentinel) = ([("cluster", "true")], [("sentinel", "mine")]);
        for (url, more, says) in [
            ("redis://h", &[][..], "Redis at h:6379"),
            ("redis+unix:///run/redis", &[], "Redis at /run/redis"),
            ("rediss://u:secret@h,i:7000/", &cluster, "the Redis cluster at h:6379,i:7000"),
            ("redis://:sec,ret@h,[::1],[::2]:7/2", &sentinel, "the Redis 'mine' of the sentinels at h:26379,::1:26379,::2:7"),
            ("redis://h,i", &[], "names more than one host: with 'cluster' 'true'"),
            ("redis://h/1", &cluster, "a cluster has none but 0"),
            ("redis+unix:///run/redis", &cluster, "must be like 'redis://user:password@host:port,host:port'"),
            ("redis://h", &[cluster, sentinel].concat(), "exclude each other"),
            ("redis://h", &[("sentinel.user", "me")], "no use without the option 'sentinel'"),
            ("redis://h", &[sentinel[0], ("sentinel.user", "me")], "'sentinel.user' needs 'sentinel.password'"),
            ("redis://h", &[cluster[0], ("type", "hash")], "give LOCATION a hash tag, '{top}'"),
        ] {
            let said = read(url, more);
            assert!(said.contains(says), "{url} {more:?}: {said}");
        }
    }
}

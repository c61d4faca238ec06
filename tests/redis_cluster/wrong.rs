//! What is said at once, in one sentence, where no waiting helps.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use falaj::batch::{Output, RowIds};
use falaj::error::{Error, Kind};
use falaj::sink::redis::{RedisOptions, RedisSink};
use falaj::sink::{Sink, Writer};
use falaj::table::TableDef;

use super::servers::{Cluster, PASSWORD, Server, Watched};

/// A table of members and scores.
pub(super) struct Table(TableDef);

impl Table {
    pub(super) fn new(location: &str, kind: &str, options: &[(&str, &str)]) -> Self {
        let columns: &[(&str, &str)] =
            if kind == "zset" { &[("member", "member"), ("score", "score")] } else { &[("key", "member")] };
        let kind = [("type", kind)];
        let options = options.iter().chain(columns).chain(&kind);
        let column = |name: &str, kind| Field::new(name, kind, true);
        Self(TableDef {
            name: "board".into(),
            stored_as: "REDIS".into(),
            unbounded: false,
            location: location.into(),
            schema: Arc::new(Schema::new(vec![column("member", DataType::Utf8), column("score", DataType::Float64)])),
            partition_by: vec![],
            options: options.map(|(name, value)| (name.to_string(), value.to_string())).collect::<BTreeMap<_, _>>(),
            place: "sinks.sql:1:1".into(),
        })
    }

    /// Writes the member `a` with the score 1.
    pub(super) async fn write(&self) -> Result<(), Error> {
        falaj::tls::provide();
        let mut sink = RedisSink::new(RedisOptions::from_table(&self.0)?);
        sink.open(&Writer { lineage: "1".into(), lane: "top".into(), incarnation: 1 }).await?;
        let members = StringArray::from_iter_values(["a"]);
        let ids = RowIds::Keys(members.clone());
        let columns: Vec<arrow::array::ArrayRef> = vec![Arc::new(members), Arc::new(Float64Array::from(vec![1.0]))];
        let rows = RecordBatch::try_new(Arc::clone(&self.0.schema), columns).unwrap();
        sink.write(1, Output::Rows { rows, ids }).await?;
        sink.apply(1, &[]).await.map(|_| ())
    }
}

#[tokio::test]
async fn who_is_asked_for_what_he_is_not_says_so_in_one_sentence() {
    let (cluster, watched, single) = (Cluster::start(0, None), Watched::start(None), Server::single());
    let master = cluster.master_of("top");
    let stranger = cluster.nodes[cluster.another_master(master)].port;
    let url = |port: u16| format!("redis://127.0.0.1:{port}");
    let login = |hosts: String| format!("redis://nobody:{PASSWORD}@{hosts}");
    let local = |port: u16| format!("127.0.0.1:{port}");
    for (url, options, kind, says) in [
        (url(stranger), &[][..], Kind::Sql, "this Redis is a cluster: set the option 'cluster' 'true'"),
        (url(single.port), &[("cluster", "true")], Kind::Sql, "this Redis is no cluster: leave out the option 'cluster'"),
        (url(single.port), &[("sentinel", "mine")], Kind::Sql, "names a Redis that is no sentinel"),
        (url(watched.sentinel.port), &[], Kind::Sql, "if it is a sentinel, set the option 'sentinel' to its master's name"),
        (url(watched.sentinel.port), &[("cluster", "true")], Kind::Sql, "if it is a sentinel, set the option 'sentinel'"),
        (
            url(watched.sentinel.port),
            &[("sentinel", "yours")],
            Kind::Sql,
            "no sentinel knows a master 'yours'; check the option",
        ),
        (login(cluster.hosts("127.0.0.1")), &[("cluster", "true")], Kind::Denied, "Redis refuses the user or the password"),
        (login(local(watched.sentinel.port)), &[("sentinel", "mine")], Kind::Denied, "Redis refuses the user or the password"),
    ] {
        let options: Vec<_> = options.iter().copied().chain([("url", url.as_str())]).collect();
        let error = Table::new("top", "zset", &options).write().await.unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains(says), "{says}: {:?} {}", error.kind(), error.chain());
        assert!(!error.chain().contains(PASSWORD), "{}", error.chain());
    }
}

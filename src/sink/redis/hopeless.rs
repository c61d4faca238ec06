//! Failures that no waiting mends, each with its sentence. What is not known to be hopeless is tried again: a server that starts,
//! fails over, is read-only, out of memory or connections comes back.

use redis::{ErrorKind, ServerErrorKind};

use super::node::{Failure, Party};
use super::server::Form;
use crate::error::Kind;
use crate::tls;

/// The kind of a hopeless failure and its sentence.
pub(super) fn sentence(failure: &Failure, form: &Form) -> Option<(Kind, String)> {
    let Failure { by, error } = failure;
    let text = error.to_string();
    let says = |part: &str| text.contains(part);
    let refuses_us = matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm))
        || ["NOAUTH", "WRONGPASS", "NOPERM"].into_iter().any(says);
    let (kind, sentence) = match error.kind() {
        _ if refuses_us && *by == Party::Sentinel => (
            Kind::Denied,
            "a sentinel refuses the user or the password; check the options 'sentinel.user' and 'sentinel.password'",
        ),
        _ if refuses_us => (Kind::Denied, "Redis refuses the user or the password; check the option 'url' and the user's ACL"),
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::CrossSlot)
            if *form != Form::Cluster =>
        {
            (Kind::Sql, "this Redis is a cluster: set the option 'cluster' 'true', and name some of its nodes in 'url'")
        }
        _ if says("cluster support disabled") => (Kind::Sql, "this Redis is no cluster: leave out the option 'cluster'"),
        ErrorKind::MasterNameNotFoundBySentinel => return Some((Kind::Sql, unknown_master(form))),
        ErrorKind::Server(ServerErrorKind::ResponseError) if says("unknown command") => match by {
            Party::Sentinel => (
                Kind::Sql,
                "the option 'url' names a Redis that is no sentinel; with the option 'sentinel' it names the sentinels",
            ),
            Party::Redis => (
                Kind::Sql,
                "this server does not know a command that falaj needs; if it is a sentinel, set the option 'sentinel' to its master's name",
            ),
        },
        ErrorKind::InvalidClientConfig | ErrorKind::RESP3NotSupported => {
            (Kind::Sql, "the option 'url' does not fit this Redis")
        }
        _ if tls::is_distrust(error) && *form == Form::Single => (
            Kind::Denied,
            "Redis and falaj do not trust each other: check 'tls.ca' (who vouches for Redis), the host's name in 'url', and 'tls.cert' with \
             its key (who vouches for falaj)",
        ),
        _ if tls::is_distrust(error) => (
            Kind::Denied,
            "Redis and falaj do not trust each other: check 'tls.ca' (who vouches for Redis), the hosts' names in 'url' and those by which \
             the nodes are announced, and 'tls.cert' with its key (who vouches for falaj)",
        ),
        ErrorKind::UnexpectedReturnType => (Kind::Bug, "an answer of Redis has another form than expected"),
        _ => return None,
    };
    Some((kind, sentence.to_string()))
}

fn unknown_master(form: &Form) -> String {
    let name = if let Form::Sentinel(name) = form { name } else { "" };
    format!("no sentinel knows a master '{name}'; check the option 'sentinel' (SENTINEL MASTERS lists the names)")
}

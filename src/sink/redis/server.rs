//! Which Redis, how it is found, and how it is talked to.

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, TlsCertificates,
};

use crate::error::Result;
use crate::table::Options;
use crate::tls::Files;

/// A host and its port.
pub(super) type Host = (String, u16);

/// The port of a sentinel whose url names none.
const SENTINEL_PORT: u16 = 26_379;

/// What stands at the hosts of the url.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// The one Redis.
    Single,
    /// Nodes of a cluster, some of them at least.
    Cluster,
    /// Sentinels, which know where the master of this name is.
    Sentinel(String),
}

/// Addresses with their credentials, and the files of TLS. The credentials are never printed.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) form: Form,
    /// Those that the url names; none if it names a Unix socket.
    pub(super) hosts: Vec<Host>,
    /// How a Redis is talked to, with the first host.
    redis: ConnectionInfo,
    /// How a sentinel is logged in to.
    sentinel: RedisConnectionInfo,
    files: Files,
}

impl Server {
    /// Reads `url` and the options that go with it; what is wrong is noted there.
    pub(super) fn read(options: &mut Options<'_>, url: &str) -> Option<Self> {
        let form = form(options);
        let sentinel = sentinel_login(options, &form);
        let infos = each_host(url, &form).unwrap_or_default();
        let is_tls = infos.first().is_none_or(|info| matches!(info.addr(), ConnectionAddr::TcpTls { .. }));
        let files = Files::of(options, is_tls);
        let hosts: Vec<Host> = infos.iter().filter_map(|info| host_of(info.addr())).collect();
        let has_socket = hosts.len() < infos.len();
        if !url.is_empty() && (infos.is_empty() || has_socket && form != Form::Single) {
            // The address is not repeated, nor the library's reason, since both may hold the password.
            options.problem(match form {
                Form::Single => "option 'url' must be like 'redis://user:password@host:6379/0', or 'rediss://…' for TLS",
                _ => "option 'url' must be like 'redis://user:password@host:port,host:port', or 'rediss://…' for TLS",
            });
        }
        if form == Form::Single && infos.len() > 1 {
            options.problem(
                "option 'url' names more than one host: with 'cluster' 'true' they are nodes of a cluster, with 'sentinel' and the \
                 master's name they are sentinels",
            );
        }
        let redis = infos.into_iter().next()?;
        if form == Form::Cluster && redis.redis_settings().db() != 0 {
            options.problem("option 'url' names a database; a cluster has none but 0");
        }
        Some(Self { form, hosts, redis, sentinel, files })
    }

    /// The same with the files of TLS read; connects to nothing.
    pub(super) fn with_files(mut self, table: &str) -> Result<Self> {
        let (root_cert, own) = (self.files.authority(table)?, self.files.own(table)?);
        let client_tls = own.map(|own| ClientTlsConfig { client_cert: own.certificate, client_key: own.key });
        if root_cert.is_some() || client_tls.is_some() {
            let client = Client::build_with_tls(self.redis, TlsCertificates { client_tls, root_cert });
            self.redis = client.map_err(|cause| self.files.wrong(table, cause))?.get_connection_info().clone();
        }
        Ok(self)
    }

    /// The Redis of the url.
    pub(super) fn redis(&self) -> ConnectionInfo {
        self.redis.clone()
    }

    /// A Redis at another host.
    pub(super) fn redis_at(&self, host: &Host) -> ConnectionInfo {
        let (host, port) = host.clone();
        let addr = match self.redis.addr().clone() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls { host, port, insecure, tls_params },
            _ => ConnectionAddr::Tcp(host, port),
        };
        self.redis().set_addr(addr)
    }

    /// A sentinel.
    pub(super) fn sentinel_at(&self, host: &Host) -> ConnectionInfo {
        self.redis_at(host).set_redis_settings(self.sentinel.clone())
    }
}

/// As messages name it.
impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hosts = self.hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect::<Vec<_>>().join(",");
        match &self.form {
            Form::Single => write!(f, "Redis at {}", self.redis.addr()),
            Form::Cluster => write!(f, "the Redis cluster at {hosts}"),
            Form::Sentinel(master) => write!(f, "the Redis '{master}' of the sentinels at {hosts}"),
        }
    }
}

fn form(options: &mut Options<'_>) -> Form {
    let is_cluster = options.one_of("cluster", &["false", "true"]) == "true";
    match options.text("sentinel") {
        Some(_) if is_cluster => {
            options.problem("the options 'cluster' and 'sentinel' exclude each other");
            Form::Cluster
        }
        Some(master) => Form::Sentinel(master.into()),
        None if is_cluster => Form::Cluster,
        None => Form::Single,
    }
}

fn sentinel_login(options: &mut Options<'_>, form: &Form) -> RedisConnectionInfo {
    let (user, password) = (options.text("sentinel.user"), options.text("sentinel.password"));
    if (user.is_some() || password.is_some()) && !matches!(form, Form::Sentinel(_)) {
        options.problem("the options 'sentinel.*' are of no use without the option 'sentinel', the master's name");
    }
    if user.is_some() && password.is_none() {
        options.problem("the option 'sentinel.user' needs 'sentinel.password'");
    }
    let login = user.into_iter().fold(RedisConnectionInfo::default(), |login, user| login.set_username(user));
    password.into_iter().fold(login, |login, password| login.set_password(password))
}

/// Takes a url apart: `redis://me@a:1,b:2/0` is `redis://me@a:1/0` and `redis://me@b:2/0`.
fn each_host(url: &str, form: &Form) -> Option<Vec<ConnectionInfo>> {
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (login, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let info = |host: &str| {
        let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
        let port = if has_port || !matches!(form, Form::Sentinel(_)) { String::new() } else { format!(":{SENTINEL_PORT}") };
        format!("{scheme}://{login}{host}{port}{path}").into_connection_info().ok()
    };
    hosts.split(',').map(info).collect()
}

fn host_of(address: &ConnectionAddr) -> Option<Host> {
    match address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => Some((host.clone(), *port)),
        _ => None,
    }
}

//! What a user may write of a schema registry in the `OPTIONS` of a table. Plain words: sources and sinks read them alike.

use std::fmt;

use crate::table::{Options, TableDef};

/// The options of a table's registry.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryOptions {
    /// `registry.url`: where its API begins, for instance `http://localhost:8081` or `…/apis/ccompat/v7`. Without a slash at the end.
    pub url: String,
    /// `registry.subject`: where the newest schema of the records is registered; `<topic>-value` when it is not given.
    pub subject: String,
    /// `registry.user` and `registry.password`, or `registry.token`.
    pub login: Login,
    /// `registry.id_bytes`: how many bytes an id takes in a record that is read, `4` (default) or, of some of Apicurio's serializers, `8`.
    pub id_bytes: usize,
    /// `registry.ca`: a PEM file with the certificates to trust beside the system's.
    pub ca: Option<String>,
    /// `registry.cert` and `registry.key`: PEM files with who we are, for a registry that asks for a certificate, and the key that proves it.
    pub own: Option<(String, String)>,
}

/// How we say who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// Not at all.
    None,
    /// By a user and a password.
    Basic(String, String),
    /// By a bearer token.
    Token(String),
}

impl RegistryOptions {
    /// Reads the options that begin with `registry.`; call it for a format that has a registry only. The topic is the table's location.
    pub fn read(options: &mut Options<'_>, table: &TableDef) -> Self {
        let url = options.required("registry.url", "http://localhost:8081").trim_end_matches('/').to_string();
        let is_url = url.starts_with("http://") || url.starts_with("https://");
        if !url.is_empty() && url != "unset" && !is_url {
            options.problem("option 'registry.url' must begin with http:// or https://");
        }
        // It would be shown in messages.
        if url.split("//").nth(1).is_some_and(|rest| rest.split('/').next().is_some_and(|host| host.contains('@'))) {
            options.problem("option 'registry.url' holds a user: give 'registry.user' and 'registry.password' instead");
        }
        let subject = options.text("registry.subject").map_or_else(|| format!("{}-value", table.location), str::to_string);
        let (user, password) = (options.text("registry.user"), options.text("registry.password"));
        let token = options.text("registry.token");
        let login = match (user, password, token) {
            (None, None, None) => Login::None,
            (Some(user), Some(password), None) => Login::Basic(user.to_string(), password.to_string()),
            (None, None, Some(token)) => Login::Token(token.to_string()),
            _ => {
                options.problem("give 'registry.user' and 'registry.password', or 'registry.token' alone");
                Login::None
            }
        };
        let mut file = |name| options.text(name).map(str::to_string);
        let (ca, cert, key) = (file("registry.ca"), file("registry.cert"), file("registry.key"));
        if cert.is_some() != key.is_some() {
            options.problem("the options 'registry.cert' and 'registry.key' go together");
        }
        if cert.is_some() && url.starts_with("http://") {
            options.problem(
                "the options 'registry.cert' and 'registry.key' are of no use: 'registry.url' asks for no TLS (https://)",
            );
        }
        let id_bytes = if options.one_of("registry.id_bytes", &["4", "8"]) == "8" { 8 } else { 4 };
        Self { url, subject, login, id_bytes, ca, own: cert.zip(key) }
    }
}

/// Without what is secret.
impl fmt::Debug for RegistryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryOptions").field("url", &self.url).field("subject", &self.subject).finish_non_exhaustive()
    }
}

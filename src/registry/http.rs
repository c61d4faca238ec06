//! A registry over HTTP, by the API that Confluent's, Apicurio's (`/apis/ccompat/v7`), Karapace and Redpanda share.
//!
//! What an answer means: 404 with the API's own error code is "there is none", 404 without it is no registry; 401 and 403 deny; 408, 425,
//! 429, 5xx and no answer at all are a registry that is away; 409 and 422 refuse a schema.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, Identity, RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use super::id::SchemaId;
use super::options::{Login, RegistryOptions};
use super::{Reference, Registry, Schema, SchemaType, Version};
use crate::error::{Error, Kind, Result};
use crate::tls;

/// How long one answer may take. Asked again later, so that a registry that hangs is noticed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// No schema of a sane person is larger; what is read of an answer ends there.
const BODY_BYTES_MAX: usize = 8 << 20;

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// The client of one registry.
pub struct HttpRegistry {
    client: Client,
    url: Url,
    login: Login,
}

/// An answer with a body of the API's.
struct Answer {
    status: StatusCode,
    body: Value,
}

/// A schema as the API writes it; the type is left out where it is Avro.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    #[serde(default)]
    subject: String,
    #[serde(default)]
    version: i32,
    #[serde(default)]
    id: u32,
    schema: String,
    #[serde(default)]
    schema_type: Option<String>,
    #[serde(default)]
    references: Option<Vec<FoundReference>>,
}

#[derive(Deserialize)]
struct FoundReference {
    name: String,
    subject: String,
    version: i32,
}

/// The id that a GUID has in one of the registry's contexts.
#[derive(Deserialize)]
struct InContext {
    id: u32,
}

#[derive(Deserialize)]
struct Name {
    subject: String,
    version: i32,
}

impl HttpRegistry {
    /// A client; connects when it is first asked. Reads the files of `registry.ca`, `registry.cert` and `registry.key`.
    pub fn new(options: &RegistryOptions) -> Result<Self> {
        let wrong = |what: String| Error::new(Kind::Sql, what);
        let mut url =
            Url::parse(&options.url).map_err(|cause| wrong("option 'registry.url' is no URL".to_string()).because(cause))?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty();
        }
        let mut client = Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
        let read = |option: &str, file: &str| {
            let unread = |cause| wrong(format!("the file of '{option}', {file}, cannot be read")).because(cause);
            std::fs::read(file).map_err(unread)
        };
        if let Some(file) = &options.ca {
            let pem = read("registry.ca", file)?;
            let unlike = |cause| wrong(format!("the file of 'registry.ca', {file}, has no certificate in PEM")).because(cause);
            for certificate in reqwest::Certificate::from_pem_bundle(&pem).map_err(unlike)? {
                client = client.add_root_certificate(certificate);
            }
        }
        if let Some((cert, key)) = &options.own {
            let pem = [read("registry.key", key)?, read("registry.cert", cert)?].concat();
            let unlike = |cause| {
                let what = format!(
                    "the files of 'registry.cert' and 'registry.key', {cert} and {key}, are no certificate and key in PEM"
                );
                wrong(what).because(cause)
            };
            client = client.identity(Identity::from_pem(&pem).map_err(unlike)?);
        }
        let client = client.build().map_err(|cause| Error::new(Kind::Bug, "no client could be made").because(cause))?;
        Ok(Self { client, url, login: options.login.clone() })
    }

    /// The URL of these path segments, each escaped.
    fn at(&self, segments: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend(segments);
        }
        url
    }

    async fn get(&self, segments: &[&str]) -> Result<Option<Value>> {
        let answer = self.send(self.client.get(self.at(segments))).await?;
        match answer.status {
            status if status.is_success() => Ok(Some(answer.body)),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(self.unlike(status)),
        }
    }

    async fn post(&self, segments: &[&str], schema: &Schema) -> Result<Answer> {
        let references: Vec<Value> = schema
            .references
            .iter()
            .map(|found| json!({"name": found.name, "subject": found.subject, "version": found.version}))
            .collect();
        let mut body = json!({"schema": schema.text, "references": references});
        if schema.schema_type != SchemaType::Avro {
            body["schemaType"] = json!(schema.schema_type.as_str());
        }
        let request = self.client.post(self.at(segments)).header(CONTENT_TYPE, MEDIA_TYPE).body(body.to_string());
        self.send(request).await
    }

    /// Sends a request; what is left to the caller is success, "there is none" and refusals.
    async fn send(&self, request: RequestBuilder) -> Result<Answer> {
        let request = match &self.login {
            Login::None => request,
            Login::Basic(user, password) => request.basic_auth(user, Some(password)),
            Login::Token(token) => request.bearer_auth(token),
        };
        let mut response = request.header(ACCEPT, MEDIA_TYPE).send().await.map_err(|cause| self.away(cause))?;
        let status = response.status();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let text = format!(
                    "the schema registry at {} answers {status}: give 'registry.user' and 'registry.password', or 'registry.token', that it lets in",
                    self.url
                );
                return Err(Error::new(Kind::Denied, text));
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                return Err(self.busy(status));
            }
            status if status.is_server_error() => return Err(self.busy(status)),
            _ => {}
        }
        let mut bytes = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|cause| self.away(cause))? {
            bytes.extend_from_slice(&part);
            if bytes.len() > BODY_BYTES_MAX {
                let text = format!("the schema registry at {} answers with more than {BODY_BYTES_MAX} bytes", self.url);
                return Err(Error::new(Kind::Full, text));
            }
        }
        match serde_json::from_slice::<Value>(&bytes) {
            Ok(body) if status.is_success() || body.get("error_code").is_some() => Ok(Answer { status, body }),
            _ => Err(self.unlike(status)),
        }
    }

    fn away(&self, cause: reqwest::Error) -> Error {
        if tls::is_distrusted(&cause) {
            let text = format!(
                "the schema registry at {} asks who we are: give 'registry.cert' and 'registry.key' that it knows, in PEM",
                self.url
            );
            return Error::new(Kind::Denied, text).because(cause.without_url());
        }
        if tls::is_distrust(&cause) {
            let text = format!(
                "the certificate of the schema registry at {} is not trusted: give the file of its CA as 'registry.ca', in PEM",
                self.url
            );
            return Error::new(Kind::Denied, text).because(cause.without_url());
        }
        let text = format!("the schema registry at {} cannot be reached", self.url);
        Error::new(Kind::Unreachable, text).because(cause.without_url())
    }

    fn busy(&self, status: StatusCode) -> Error {
        Error::new(Kind::Unreachable, format!("the schema registry at {} answers {status}", self.url))
    }

    fn unlike(&self, status: StatusCode) -> Error {
        let text = format!("what answers {status} at {} is no schema registry: correct 'registry.url'", self.url);
        Error::new(Kind::Sql, text)
    }

    /// Reads an answer, or says that it is none of a registry's.
    fn read<T: serde::de::DeserializeOwned>(&self, body: Value) -> Result<T> {
        serde_json::from_value(body).map_err(|cause| self.unlike(StatusCode::OK).because(cause))
    }
}

fn reason(answer: &Answer) -> String {
    answer.body["message"].as_str().unwrap_or("it gives no reason").to_string()
}

impl Found {
    fn schema(self) -> Result<Schema> {
        let schema_type = match self.schema_type.as_deref() {
            None | Some("AVRO") => SchemaType::Avro,
            Some("JSON") => SchemaType::Json,
            Some("PROTOBUF") => SchemaType::Protobuf,
            Some(other) => {
                let text = format!("the registry has a schema of type {other}; AVRO, JSON and PROTOBUF are known");
                return Err(Error::new(Kind::Refused, text));
            }
        };
        let references = self.references.unwrap_or_default().into_iter();
        let references = references.map(|FoundReference { name, subject, version }| Reference { name, subject, version });
        Ok(Schema { schema_type, text: self.schema, references: references.collect() })
    }

    fn version(self) -> Result<Version> {
        Ok(Version { subject: self.subject.clone(), version: self.version, id: self.id, schema: self.schema()? })
    }
}

#[async_trait]
impl Registry for HttpRegistry {
    async fn fetch(&self, id: SchemaId) -> Result<Option<Schema>> {
        let found = match id {
            SchemaId::Id(_) => self.get(&["schemas", "ids", &id.to_string()]).await,
            SchemaId::Guid(_) => match self.get(&["schemas", "guids", &id.to_string()]).await {
                // Where there are no GUIDs, that path is not there; this one is in every registry, and in nothing else.
                Err(error) if error.kind() == Kind::Sql => self.get(&["schemas", "types"]).await.map(|_| None),
                found => found,
            },
        };
        let Some(body) = found? else { return Ok(None) };
        self.read::<Found>(body)?.schema().map(Some)
    }

    async fn names(&self, id: SchemaId) -> Result<Vec<(String, i32)>> {
        let id = match id {
            SchemaId::Id(id) => id,
            // Of several contexts with this schema, the first is as good as any.
            SchemaId::Guid(_) => {
                match self.get(&["schemas", "guids", &id.to_string(), "ids"]).await?.map(|body| self.read(body)) {
                    Some(Ok::<Vec<InContext>, _>(found)) if !found.is_empty() => found[0].id.into(),
                    _ => return Ok(Vec::new()),
                }
            }
        };
        let Some(body) = self.get(&["schemas", "ids", &id.to_string(), "versions"]).await? else { return Ok(Vec::new()) };
        let names: Vec<Name> = self.read(body)?;
        Ok(names.into_iter().map(|name| (name.subject, name.version)).collect())
    }

    async fn latest(&self, subject: &str) -> Result<Option<Version>> {
        let Some(body) = self.get(&["subjects", subject, "versions", "latest"]).await? else { return Ok(None) };
        self.read::<Found>(body)?.version().map(Some)
    }

    async fn version(&self, subject: &str, version: i32) -> Result<Option<Version>> {
        let Some(body) = self.get(&["subjects", subject, "versions", &version.to_string()]).await? else { return Ok(None) };
        self.read::<Found>(body)?.version().map(Some)
    }

    async fn register(&self, subject: &str, schema: &Schema) -> Result<u32> {
        let answer = self.post(&["subjects", subject, "versions"], schema).await?;
        if answer.status.is_success() {
            let id = answer.body["id"].as_u64().and_then(|id| u32::try_from(id).ok());
            return id.ok_or_else(|| self.unlike(answer.status));
        }
        let text =
            format!("the schema registry at {} will not have the schema of subject '{subject}': {}", self.url, reason(&answer));
        Err(Error::new(Kind::Refused, text))
    }

    async fn incompatible(&self, subject: &str, schema: &Schema) -> Result<Option<String>> {
        let answer = self.post(&["compatibility", "subjects", subject, "versions", "latest"], schema).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                if answer.body["is_compatible"].as_bool().ok_or_else(|| self.unlike(status))? {
                    return Ok(None);
                }
                let messages = answer.body["messages"].as_array().into_iter().flatten().filter_map(Value::as_str);
                let reasons = messages.collect::<Vec<_>>().join("; ");
                Ok(Some(if reasons.is_empty() { "it gives no reason".to_string() } else { reasons }))
            }
            _ => Ok(Some(reason(&answer))),
        }
    }
}

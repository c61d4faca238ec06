//! Who may know whom in `src`: the table, and the test that reads every path in the code and holds it.
//! Code of tests inside `src` is left out: it may know stand-ins of other rooms.

use std::path::{Path, PathBuf};

/// The kinds of rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    /// What all share: plain types and functions.
    Words,
    /// The traits at the edges, and the types in them.
    Port,
    /// The thinking: no client crate, no file system.
    Core,
    /// One outside system behind a port.
    Adapter,
    /// What the adapters of one outside system share.
    Client,
    /// An adapter over memory, for the demo and for tests.
    StandIn,
    Lane,
    Web,
    App,
    Tool,
    Cli,
}

use Layer::{Adapter, App, Cli, Client, Core, Lane, Port, StandIn, Tool, Web, Words};

/// Every room of `src`, by the beginning of its path; the longest that fits counts.
const ROOMS: &[(&str, Layer)] = &[
    ("backoff", Words),
    ("batch", Words),
    ("clock", Words),
    ("debezium", Words),
    ("error", Words),
    ("failpoint", Words),
    ("headers", Words),
    ("memory", Words),
    ("metrics", Words),
    ("outage", Words),
    ("pgoutput", Words),
    ("position", Words),
    ("private", Words),
    ("secrets", Words),
    ("settings", Words),
    ("status", Words),
    ("table", Words),
    ("tls", Words),
    ("traces", Words),
    ("kafka", Client),
    ("postgres", Client),
    ("s3", Client),
    ("source", Port),
    ("source::kafka", Adapter),
    ("source::memory", StandIn),
    ("source::postgres", Adapter),
    ("source::log", Core),
    ("source::order", Core),
    ("decode", Port),
    ("decode::avro", Core),
    ("decode::debezium", Core),
    ("decode::framed", Core),
    ("decode::json", Core),
    ("decode::pgoutput", Core),
    ("decode::protobuf", Core),
    ("decode::rows", Core),
    ("registry", Port),
    ("registry::id", Words),
    ("registry::options", Words),
    ("registry::proto", Words),
    ("registry::schemas", Core),
    ("registry::http", Adapter),
    ("lookup", Port),
    ("lookup::index", Core),
    ("lookup::join", Core),
    ("lookup::misses", Core),
    ("lookup::options", Core),
    ("lookup::refresh", Core),
    ("lookup::version", Core),
    ("lookup::memory", StandIn),
    ("lookup::postgres", Adapter),
    ("query", Core),
    ("window", Core),
    ("checkpoint", Port),
    ("checkpoint::fork", Core),
    ("checkpoint::handover", Core),
    ("checkpoint::lane_log", Core),
    ("checkpoint::read", Core),
    ("checkpoint::record", Core),
    ("checkpoint::recover", Core),
    ("checkpoint::verify", Core),
    ("checkpoint::local", Adapter),
    ("checkpoint::s3", Adapter),
    ("checkpoint::memory", StandIn),
    ("sink", Port),
    ("sink::cells", Core),
    ("sink::json", Core),
    ("sink::files", Adapter),
    ("sink::http", Adapter),
    ("sink::kafka", Adapter),
    ("sink::redis", Adapter),
    ("sink::memory", StandIn),
    ("sink::print", StandIn),
    ("dead", Port),
    ("dead::folder", Adapter),
    ("dead::kafka", Adapter),
    ("lane", Lane),
    ("web", Web),
    ("app", App),
    ("tool", Tool),
    ("tool::generate", Tool),
    ("cli", Cli),
];

/// What each layer may import beside its own room. What an adapter may import more is in [`allowed`].
const MAY: &[(Layer, &[Layer])] = &[
    (Words, &[Words]),
    (Port, &[Words, Port]),
    (Core, &[Words, Port, Core]),
    (Adapter, &[Words]),
    (Client, &[Words]),
    (StandIn, &[Words]),
    (Lane, &[Words, Port, Core, Lane]),
    (Web, &[Words]),
    (App, &[Words, Port, Core, Adapter, Client, StandIn, Lane]),
    (Tool, &[Words, Port, Core, StandIn, Web, App, Tool]),
    (Cli, &[Words, Tool]),
];

/// The crates and the parts of the standard library that lead out of the process, and the only rooms that name them.
const CRATES: &[(&str, &[&str])] = &[
    ("rdkafka", &["kafka", "source::kafka", "sink::kafka", "dead::kafka", "tool::generate"]),
    ("redis", &["sink::redis"]),
    ("reqwest", &["registry::http", "s3", "sink::http", "tool::remote"]),
    ("tokio_postgres", &["postgres", "lookup::postgres", "source::postgres", "tool::generate"]),
    ("pgwire_replication", &["postgres", "lookup::postgres", "source::postgres"]),
    ("parquet", &["sink::files"]),
    ("object_store", &["s3", "checkpoint::s3", "sink::files", "sink::http"]),
    ("prometheus_client", &["metrics"]),
    ("axum", &["web", "tool::receive"]),
    ("ratatui", &["tool::board"]),
    ("indicatif", &["tool::generate", "tool::progress"]),
    ("clap", &["cli", "tool"]),
    ("tracing_subscriber", &["cli"]),
    ("opentelemetry", &["traces"]),
    ("opentelemetry_sdk", &["traces"]),
    ("opentelemetry_otlp", &["traces"]),
    (
        "datafusion",
        &[
            "query",
            "window",
            "lane",
            "settings",
            "memory",
            "lookup::index",
            "lookup::join",
            "lookup::misses",
            "lookup::version",
        ],
    ),
    (
        "std::fs",
        &[
            "checkpoint::local",
            "dead::folder",
            "private",
            "registry::http",
            "s3",
            "sink::files",
            "sink::http",
            "source::postgres",
            "secrets",
            "tls",
            "tool",
        ],
    ),
    ("tokio::fs", &["checkpoint::local", "dead::folder", "sink::files", "sink::http", "tool"]),
    ("std::net", &["web", "tool"]),
    ("tokio::net", &["web", "tool"]),
    ("std::env", &["secrets", "failpoint", "s3", "traces"]),
];

const LINES_MAX: usize = 500;

#[test]
fn every_path_in_src_goes_where_the_table_allows() {
    let mut violations = Vec::new();
    for file in Source::all().iter().filter(|file| !file.is_test()) {
        for (line, path) in file.paths() {
            let rule = file.rule_against(&path);
            violations.extend(rule.map(|rule| file.violation(line, rule)));
        }
    }
    report(violations);
}

#[test]
fn every_room_of_the_table_is_there() {
    let files = Source::all();
    let missing = ROOMS.iter().filter(|(room, _)| !files.iter().any(|file| below(&file.module, room)));
    report(missing.map(|(room, _)| format!("tests/layering.rs: the room '{room}' is not in src")).collect());
}

#[test]
fn every_module_says_what_it_defines_and_is_short() {
    let mut violations = Vec::new();
    for file in Source::all() {
        if !file.text.starts_with("//! ") {
            violations.push(file.violation(1, "a module opens with '//!' that says what it defines".into()));
        }
        if file.text.lines().count() > LINES_MAX {
            let rule = format!("no file is longer than {LINES_MAX} lines: split it by what it defines");
            violations.push(file.violation(LINES_MAX + 1, rule));
        }
    }
    report(violations);
}

#[test]
fn the_scanner_finds_paths_in_every_spelling() {
    let text = "use crate::a::{self, b::{C, D}, e};\nuse super::x;\n// crate::not::me\nlet x = crate::f::g(redis::H, 1); // crate::nor::me\n\
                pub use rdkafka::{\n    K,\n    l::M,\n};\n#[cfg(test)]\nmod tests {\n    use crate::never;\n}\n";
    let file = Source { path: "src/p/q.rs".into(), module: "p::q".into(), text: text.into() };
    let found: Vec<String> = file.paths().into_iter().map(|(line, path)| format!("{line} {path}")).collect();
    let expected = "1 crate::a|1 crate::a::b::C|1 crate::a::b::D|1 crate::a::e|2 crate::p::x|4 crate::f::g|4 redis::H|5 rdkafka::K|5 rdkafka::l::M";
    assert_eq!(found.join("|"), expected);
    assert!(file.rule_against("rdkafka::K").is_some());
}

/// One file of `src`.
struct Source {
    /// From the repository's root.
    path: String,
    /// Its module's path in the crate; empty for `lib.rs`.
    module: String,
    text: String,
}

impl Source {
    fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = Vec::new();
        let mut folders = vec![root.join("src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    found.push(Self::read(root, path));
                }
            }
        }
        assert!(found.len() > 50, "src was not found");
        found.sort_by(|left, right| left.path.cmp(&right.path));
        found
    }

    fn read(root: &Path, path: PathBuf) -> Self {
        let text = std::fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(root).unwrap().display().to_string();
        let module = path.trim_start_matches("src/").trim_end_matches(".rs").replace('/', "::");
        let module = module.trim_end_matches("::mod").to_string();
        let module = if module == "lib" { String::new() } else { module };
        Self { path, module, text }
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.contains("/tests/")
    }

    fn violation(&self, line: usize, rule: String) -> String {
        format!("{}:{line}: {rule}", self.path)
    }

    /// Every path with a `::` that the code names outside its tests, with its line; `use` groups are taken apart, `super` and
    /// `self` are resolved.
    fn paths(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let mut statement: Option<(usize, String)> = None;
        let lines: Vec<&str> = self.text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            if line.trim() == "#[cfg(test)]" && lines.get(index + 1).is_some_and(|next| next.starts_with("mod tests {")) {
                break;
            }
            let code = line.split("// ").next().unwrap_or_default().trim();
            if code.starts_with("//") {
                continue;
            }
            let begins =
                ["use ", "pub use ", "pub(crate) use ", "pub(super) use "].iter().find_map(|word| code.strip_prefix(word));
            match (&mut statement, begins) {
                (None, None) => found.extend(plain_paths(code).map(|path| (index + 1, path))),
                (None, Some(rest)) => statement = Some((index + 1, rest.to_string())),
                (Some((_, text)), _) => text.push_str(code),
            }
            if let Some((line, text)) = statement.take_if(|(_, text)| text.ends_with(';')) {
                found.extend(expanded(text.trim_end_matches(';')).into_iter().map(|path| (line, path)));
            }
        }
        found.into_iter().filter_map(|(line, path)| Some((line, self.resolved(&path)?))).collect()
    }

    /// The path from `crate`, or from the outside crate that it names. `None`: it stays within this module.
    fn resolved(&self, path: &str) -> Option<String> {
        let mut module: Vec<&str> = self.module.split("::").collect();
        let mut rest = path;
        while let Some(after) = rest.strip_prefix("super::") {
            module.pop();
            rest = after;
        }
        if rest.len() < path.len() {
            return Some(format!("crate::{}", [&module[..], &[rest]].concat().join("::")));
        }
        (!path.starts_with("self::") && path.contains("::")).then(|| path.to_string())
    }

    fn rule_against(&self, path: &str) -> Option<String> {
        let Some(inside) = path.strip_prefix("crate::") else {
            let (name, rooms) = CRATES.iter().find(|(name, _)| below(path, name))?;
            let free = rooms.iter().any(|room| below(&self.module, room));
            return (!free).then(|| format!("'{path}': only {} may name {name}", rooms.join(", ")));
        };
        if self.path == "src/main.rs" || self.path == "src/lib.rs" {
            return None;
        }
        let Some((from, layer)) = room_of(&self.module) else {
            return Some(format!("the module '{}' has no room in the table of tests/layering.rs", self.module));
        };
        let (to, target) = room_of(inside)?;
        let allowed = from == to || allowed(from, layer, to, target);
        (!allowed).then(|| format!("'{path}': {layer:?} ({from}) may not import {target:?} ({to})"))
    }
}

fn allowed(from: &str, layer: Layer, to: &str, target: Layer) -> bool {
    let may = MAY.iter().find(|(of, _)| *of == layer).is_some_and(|(_, may)| may.contains(&target));
    let adapter = matches!(layer, Adapter | StandIn);
    let own_port = adapter && target == Port && below(from, to);
    let own_core = adapter && target == Core && from.split("::").next() == to.split("::").next();
    // Dead letters are fenced by the same writer as a sink.
    let writer = adapter && below(from, "dead") && to == "sink";
    // The room of a system is for its own adapters.
    let client =
        target == Client && layer == Adapter && (from.ends_with(&format!("::{to}")) || to == "s3" && below(from, "sink"));
    // A source's options name the type of its schemas, and a sink registers the schema of what it writes.
    let schemas = adapter && to == "registry";
    // What fills a database reaches it as what reads it does.
    let filled = (from, to) == ("tool::generate", "postgres");
    may || own_port || own_core || writer || client || schemas || filled
}

fn room_of(path: &str) -> Option<(&'static str, Layer)> {
    let fitting = ROOMS.iter().filter(|(room, _)| below(path, room));
    fitting.max_by_key(|(room, _)| room.len()).copied()
}

fn below(path: &str, room: &str) -> bool {
    path.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn plain_paths(code: &str) -> impl Iterator<Item = String> {
    let words = code.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
    words.filter(|word| word.contains("::") && !word.starts_with("::")).map(|word| word.trim_end_matches(':').to_string())
}

/// `a::{b, c::{d}}` is `a::b` and `a::c::d`.
fn expanded(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, inside)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default().trim();
        return vec![path.trim_end_matches("::self").to_string()];
    };
    let inside = inside.strip_suffix('}').unwrap_or(inside);
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inside[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inside[from..]);
    let full = parts.iter().filter(|part| !part.trim().is_empty()).map(|part| format!("{prefix}{}", part.trim()));
    full.flat_map(|part| expanded(&part)).collect()
}

fn report(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

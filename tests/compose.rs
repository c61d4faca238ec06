//! docker-compose.yml against what it repeats: scripts/services.conf, the Dockerfile, the shipped queries, and the command line.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use falaj::settings::Settings;
use saphyr::{LoadableYamlNode, Yaml};

/// Not those of scripts/services.
const OURS: [&str; 6] = ["falaj", "receiver", "tables", "generator", "prometheus", "grafana"];
/// What has no port: one ends by itself, the other shows that it works by the events that come.
const WITHOUT_HEALTH: [&str; 2] = ["tables", "generator"];
/// What a Kafka needs to know of its place, which differs inside a container; scripts/services says it in its own words.
const KAFKA_PLACE: [&str; 10] = [
    "KAFKA_PROCESS_ROLES",
    "KAFKA_NODE_ID",
    "KAFKA_CONTROLLER_QUORUM_VOTERS",
    "KAFKA_LISTENERS",
    "KAFKA_ADVERTISED_LISTENERS",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP",
    "KAFKA_INTER_BROKER_LISTENER_NAME",
    "KAFKA_CONTROLLER_LISTENER_NAMES",
    "KAFKA_LOG_DIRS",
    "KAFKA_HEAP_OPTS",
];

#[test]
fn the_services_are_those_of_the_scripts_with_the_same_ports_and_settings() {
    let (text, conf) = (file("docker-compose.yml"), Conf::read());
    let compose = parse(&text);
    let names: BTreeSet<&str> = keys(&compose["services"]).into_iter().filter(|name| !OURS.contains(name)).collect();
    assert_eq!(names, conf.services());
    for name in names {
        let port = conf.value(name, "port");
        let published = format!("127.0.0.1:${{FALAJ_{}_PORT:-{port}}}:{port}", name.to_uppercase());
        assert_eq!(texts(&compose["services"][name]["ports"]), [published]);
    }

    let kafka = &compose["services"]["kafka"];
    assert_eq!(text_of(&kafka["image"]), format!("apache/kafka:{}", conf.value("kafka", "version")));
    let mut environment = environment(kafka);
    assert_eq!(environment["KAFKA_HEAP_OPTS"], format!("-Xmx{}", conf.value("kafka", "heap")));
    assert!(KAFKA_PLACE.iter().all(|name| environment.remove(name).is_some()));
    let variable = |name: &str| format!("KAFKA_{}", name.to_uppercase().replace('.', "_"));
    let expected: BTreeMap<_, _> = conf.settings("kafka").into_iter().map(|(name, value)| (variable(name), value)).collect();
    assert_eq!(environment.into_iter().map(|(name, value)| (name.to_string(), value)).collect::<BTreeMap<_, _>>(), expected);
}

#[test]
fn postgres_and_redis_are_told_the_same_on_their_command_lines() {
    let (text, conf) = (file("docker-compose.yml"), Conf::read());
    let compose = parse(&text);
    let postgres = &compose["services"]["postgres"];
    assert_eq!(text_of(&postgres["image"]), format!("postgres:{}", conf.value("postgres", "version")));
    let settings = conf.settings("postgres").into_iter().flat_map(|(name, value)| ["-c".into(), format!("{name}={value}")]);
    assert_eq!(texts(&postgres["command"]), ["postgres".to_string()].into_iter().chain(settings).collect::<Vec<_>>());
    let environment = environment(postgres);
    assert_eq!(environment["POSTGRES_USER"], conf.value("postgres", "user"));
    assert_eq!(environment["POSTGRES_DB"], conf.value("postgres", "database"));
    assert_eq!(environment["POSTGRES_INITDB_ARGS"], conf.value("postgres", "initdb"));

    let redis = &compose["services"]["redis"];
    assert_eq!(text_of(&redis["image"]), format!("redis:{}", conf.value("redis", "version")));
    let settings = conf.settings("redis").into_iter().flat_map(|(name, value)| [format!("--{name}"), value.to_string()]);
    assert_eq!(texts(&redis["command"]), ["redis-server".to_string()].into_iter().chain(settings).collect::<Vec<_>>());
}

#[test]
fn the_schema_registry_is_the_same() {
    let (text, conf) = (file("docker-compose.yml"), Conf::read());
    let registry = &parse(&text)["services"]["registry"];
    assert_eq!(text_of(&registry["image"]), format!("apicurio/apicurio-registry:{}", conf.value("registry", "version")));
    let environment = environment(registry);
    assert_eq!(environment["QUARKUS_HTTP_PORT"], conf.value("registry", "port"));
    assert_eq!(environment["JAVA_OPTS"], format!("-Xmx{}", conf.value("registry", "heap")));
    let pom = file("scripts/registry-pom.xml");
    assert!(pom.contains(&format!("<registry.version>{}</registry.version>", conf.value("registry", "version"))));
}

#[test]
fn every_service_has_a_health_check_and_is_published_on_loopback_only() {
    let text = file("docker-compose.yml");
    let compose = parse(&text);
    for name in keys(&compose["services"]) {
        let service = &compose["services"][name];
        let published = if service.contains_mapping_key("ports") { texts(&service["ports"]) } else { Vec::new() };
        assert!(published.iter().all(|port| port.starts_with("127.0.0.1:")), "{name}: {published:?}");
        if WITHOUT_HEALTH.contains(&name) {
            continue;
        }
        let check = &service["healthcheck"];
        assert!(texts(&check["test"]).len() > 1, "{name}");
        assert!(["interval", "timeout", "retries"].iter().all(|key| check.contains_mapping_key(key)), "{name}");
    }
}

#[test]
fn falaj_is_told_what_its_queries_and_its_flags_ask_for() {
    let (text, conf) = (file("docker-compose.yml"), Conf::read());
    let compose = parse(&text);
    let (falaj, receiver) = (&compose["services"]["falaj"], &compose["services"]["receiver"]);
    let (environment, of_receiver) = (environment(falaj), environment(receiver));

    let asked = asked_by_queries();
    let given = environment.keys().map(|name| name.to_string()).collect::<BTreeSet<_>>();
    assert!(asked.is_subset(&given), "the queries ask for {asked:?}; given are {given:?}");
    let flags = help("run");
    assert!(given.difference(&asked).all(|name| flags.contains(&format!("[env: {name}="))), "{given:?}");
    let flags = help("receive");
    assert!(of_receiver.keys().all(|name| flags.contains(&format!("[env: {name}="))), "{of_receiver:?}");
    assert_eq!(texts(&receiver["command"]), ["receive"]);

    let listeners = compose["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].as_str().unwrap();
    assert!(listeners.contains(&format!("INTERNAL://{}", environment["KAFKA_BROKERS"])));
    let of_postgres = |what| conf.value("postgres", what);
    let url = format!("postgres://{}@postgres:{}/{}", of_postgres("user"), of_postgres("port"), of_postgres("database"));
    assert_eq!(environment["DATABASE_URL"], url);
    assert_eq!(environment["REDIS_URL"], format!("redis://redis:{}", conf.value("redis", "port")));
    let (_, port) = of_receiver["FALAJ_BIND"].rsplit_once(':').unwrap();
    assert_eq!(texts(&receiver["ports"]), [format!("127.0.0.1:{port}:{port}")]);
    assert!(environment["PARTNER_URL"].starts_with(&format!("http://receiver:{port}/")));

    for name in conf.services().into_iter().chain(["receiver"]) {
        assert_eq!(falaj["depends_on"][name]["condition"].as_str(), Some("service_healthy"), "{name}");
    }
}

#[test]
fn the_leaderboard_fills_by_itself() {
    let text = file("docker-compose.yml");
    let services = &parse(&text)["services"];
    let flags = help("generate");
    for name in ["tables", "generator"] {
        let command = texts(&services[name]["command"]);
        assert_eq!(command[0], "generate");
        assert!(command.iter().filter(|word| word.starts_with("--")).all(|flag| flags.contains(flag)), "{name}: {command:?}");
        assert_eq!(environment(&services[name])["DATABASE_URL"], environment(&services["falaj"])["DATABASE_URL"]);
        // The first process of a container gets no signal that it does not ask for.
        assert_eq!(services[name]["init"].as_bool(), Some(true));
    }
    for name in ["falaj", "generator"] {
        let after = &services[name]["depends_on"]["tables"]["condition"];
        assert_eq!(after.as_str(), Some("service_completed_successfully"), "{name} needs the tables");
    }
}

#[test]
fn prometheus_and_grafana_reach_what_they_show() {
    let text = file("docker-compose.yml");
    let services = &parse(&text)["services"];
    let (prometheus, grafana) = (&services["prometheus"], &services["grafana"]);
    // falaj listens on loopback only: whoever asks it must have its network.
    assert_eq!(text_of(&prometheus["network_mode"]), "service:falaj");
    let (scrapes, settings) = (file("deploy/prometheus/prometheus.yml"), Settings::default());
    assert!(scrapes.contains(&format!("targets: [\"{}\"]", settings.listen)), "{scrapes}");
    assert!(texts(&services["falaj"]["ports"]).contains(&"127.0.0.1:9090:9090".to_string()));
    let source = file("deploy/grafana/provisioning/datasources/prometheus.yml");
    assert_eq!(text_of(&parse(&source)["datasources"][0]["url"]), "http://falaj:9090");
    let provider = file("deploy/grafana/provisioning/dashboards/falaj.yml");
    let dashboards = text_of(&parse(&provider)["providers"][0]["options"]["path"]).to_string();
    let mounts = texts(&grafana["volumes"]);
    assert!(mounts.contains(&format!("./deploy/grafana/dashboards:{dashboards}:ro")), "{mounts:?}");
    let home = environment(grafana)["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].to_string();
    let name = home.strip_prefix(&format!("{dashboards}/")).unwrap();
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana/dashboards").join(name).is_file());
    for mount in mounts.iter().chain(&texts(&prometheus["volumes"])).filter(|mount| mount.starts_with("./")) {
        let (folder, _) = mount.split_once(':').unwrap();
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).is_dir(), "{folder}");
    }
}

#[test]
fn falaj_fits_its_image() {
    let text = file("docker-compose.yml");
    let falaj = &parse(&text)["services"]["falaj"];
    let dockerfile = file(text_of(&falaj["build"]["dockerfile"]));
    let says = |line: &str| assert!(dockerfile.lines().any(|found| found.trim() == line), "the Dockerfile does not say {line}");
    says("ENTRYPOINT [\"falaj\"]");
    says("CMD [\"run\", \"queries\"]");
    says("COPY queries queries");
    // The settings' folders are below data/ of the working folder, which must outlive the container.
    let settings = Settings::default();
    assert!(settings.checkpoint.0.starts_with("data/") && settings.outbox.starts_with("data/"));
    let (_, mount) = text_of(&falaj["volumes"][0]).split_once(':').unwrap();
    says(&format!("WORKDIR {}", mount.strip_suffix("/data").unwrap()));
    says(&format!("VOLUME {mount}"));
    let version = file("Cargo.toml").lines().find_map(|line| line.strip_prefix("rust-version = ").map(str::to_string)).unwrap();
    says(&format!("FROM rust:{}-bookworm AS build", version.trim_matches('"')));

    let check = texts(&falaj["healthcheck"]["test"]).join(" ");
    assert!(check.contains(&settings.listen.replace(':', "/")) && check.contains("GET /livez "), "{check}");
}

/// scripts/services.conf: lines of `<service>.<what>=<value>`.
struct Conf(Vec<(String, String)>);

impl Conf {
    fn read() -> Self {
        let text = file("scripts/services.conf");
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(|line| line.split_once('=').unwrap()).map(|(name, value)| (name.into(), value.into())).collect())
    }

    fn services(&self) -> BTreeSet<&str> {
        self.0.iter().map(|(name, _)| name.split_once('.').unwrap().0).collect()
    }

    fn value(&self, service: &str, what: &str) -> &str {
        let wanted = format!("{service}.{what}");
        &self.0.iter().find(|(name, _)| *name == wanted).unwrap().1
    }

    /// `<service>.set.<name>`, in the order of the file.
    fn settings(&self, service: &str) -> Vec<(&str, &str)> {
        let prefix = format!("{service}.set.");
        self.0.iter().filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?, value.as_str()))).collect()
    }
}

/// Every NAME of `${env:NAME…}` in the shipped queries.
fn asked_by_queries() -> BTreeSet<String> {
    let mut asked = BTreeSet::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("queries")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            let sql = std::fs::read_to_string(path).unwrap();
            let names = sql.split("${env:").skip(1).map(|rest| rest.split([':', '}']).next().unwrap().to_string());
            asked.extend(names);
        }
    }
    asked
}

fn help(command: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_falaj")).args([command, "--help"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn parse(text: &str) -> Yaml<'_> {
    Yaml::load_from_str(text).unwrap().remove(0)
}

fn text_of<'a>(node: &'a Yaml<'_>) -> &'a str {
    node.as_str().unwrap()
}

fn texts(node: &Yaml<'_>) -> Vec<String> {
    node.as_sequence().unwrap().iter().map(|item| text_of(item).to_string()).collect()
}

fn keys<'a>(node: &'a Yaml<'_>) -> Vec<&'a str> {
    node.as_mapping().unwrap().keys().map(text_of).collect()
}

fn environment<'a>(service: &'a Yaml<'_>) -> BTreeMap<&'a str, &'a str> {
    service["environment"].as_mapping().unwrap().iter().map(|(name, value)| (text_of(name), text_of(value))).collect()
}

//! What is shipped beside the program: completions, man pages, the unit for systemd, the manifest for Kubernetes, and the workflows.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use saphyr::{LoadableYamlNode, Yaml};

#[test]
fn every_shell_completes_every_command_and_every_command_has_a_man_page() {
    let commands = commands();
    assert!(commands.len() >= 10 && commands.contains(&"run".to_string()), "{commands:?}");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = text(falaj(&["completions", shell]));
        let missing: Vec<_> = commands.iter().filter(|command| !script.contains(command.as_str())).collect();
        assert!(missing.is_empty() && script.contains("no-web"), "{shell}: {missing:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("share/man1");
    text(falaj(&["man", pages.to_str().unwrap()]));
    assert!(pages.join("falaj.1").is_file());
    for command in commands.iter().filter(|command| *command != "help") {
        let page = std::fs::read_to_string(pages.join(format!("falaj-{command}.1"))).unwrap();
        assert!(page.contains(".TH falaj-") && page.contains(".SH SYNOPSIS"), "{command}:\n{page}");
    }
    let run = std::fs::read_to_string(pages.join("falaj-run.1")).unwrap();
    assert!(run.replace('\\', "").contains("FALAJ_NO_WEB"), "a page names the variables:\n{run}");
}

#[test]
fn man_pages_that_cannot_be_written_are_one_sentence() {
    let output = falaj(&["man", "/dev/null/man1"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("falaj: the man pages cannot be written to /dev/null/man1: "), "{said}");
}

#[test]
fn systemd_accepts_the_unit_and_does_not_start_again_what_would_fail_again() {
    let unit = file("deploy/falaj.service");
    let says = |line: &str| assert!(unit.lines().any(|found| found == line), "the unit does not say {line}");
    says("ExecStart=/usr/local/bin/falaj run /etc/falaj/queries");
    says("RestartPreventExitStatus=2 78");
    says("StateDirectory=falaj");
    says("WorkingDirectory=/var/lib/falaj");
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("systemd-analyze is not there: the unit is not verified");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("falaj.service");
    // The program and its page are not installed here.
    let here = unit.replace("/usr/local/bin/falaj", env!("CARGO_BIN_EXE_falaj")).replace("Documentation=man:falaj(1)\n", "");
    std::fs::write(&path, here).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", path.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // It looks at the machine's other units, too.
    let ours: Vec<_> = said.lines().filter(|line| line.contains("falaj.service")).collect();
    assert!(ours.is_empty(), "{said}");
}

#[test]
fn kubernetes_runs_one_falaj_which_keeps_its_data_and_stops_in_peace() {
    let text = file("deploy/kubernetes.yaml");
    let objects = Yaml::load_from_str(&text).unwrap();
    let of_kind = |kind: &str| objects.iter().find(|object| object["kind"].as_str() == Some(kind)).unwrap();
    let (claim, deployment) = (of_kind("PersistentVolumeClaim"), &of_kind("Deployment")["spec"]);
    assert_eq!(deployment["replicas"].as_integer(), Some(1));
    assert_eq!(deployment["strategy"]["type"].as_str(), Some("Recreate"));
    let pod = &deployment["template"]["spec"];
    assert!(pod["terminationGracePeriodSeconds"].as_integer() > Some(5));
    let container = &pod["containers"][0];
    assert_eq!(text_of(&pod["volumes"][0]["persistentVolumeClaim"]["claimName"]), text_of(&claim["metadata"]["name"]));
    assert_eq!(text_of(&container["volumeMounts"][0]["name"]), text_of(&pod["volumes"][0]["name"]));
    let dockerfile = file("deploy/Dockerfile");
    assert!(dockerfile.contains(&format!("VOLUME {}\n", text_of(&container["volumeMounts"][0]["mountPath"]))));
    let user = pod["securityContext"]["runAsUser"].as_integer().unwrap();
    assert!(dockerfile.contains(&format!("--uid {user} ")));
    let listen = falaj::settings::Settings::default().listen.replace(':', "/");
    for (probe, path) in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        let command = text_of(&container[probe]["exec"]["command"][2]);
        assert!(command.contains(&format!("/dev/tcp/{listen} ")) && command.contains(&format!("GET {path} ")), "{command}");
    }
}

#[test]
fn workflows_use_the_rust_of_cargo_toml_and_scripts_that_are_there() {
    let manifest = file("Cargo.toml");
    let rust = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    let workflows: BTreeMap<_, _> =
        ["ci", "image", "release"].map(|name| (name, file(&format!(".github/workflows/{name}.yml")))).into();
    let installs: Vec<_> =
        workflows.values().flat_map(|text| text.lines()).filter(|line| line.contains("rustup toolchain install")).collect();
    let other: Vec<_> = installs.iter().filter(|line| !line.contains(&format!("install {rust} "))).collect();
    assert!(installs.len() == 3 && other.is_empty(), "{installs:?}");
    assert!(workflows["ci"].contains("- run: scripts/test\n") && workflows["image"].contains("file: deploy/Dockerfile\n"));
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = ")).unwrap().trim_matches('"');
    assert!(file("CHANGELOG.md").contains(&format!("\n## {version}")), "CHANGELOG.md says nothing of {version}");
}

fn commands() -> Vec<String> {
    let help = text(falaj(&["--help"]));
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let lines = list.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
    lines.filter(|line| !line.starts_with(' ')).map(|line| line.split(' ').next().unwrap().to_string()).collect()
}

fn falaj(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_falaj")).args(args).output().unwrap()
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn text_of<'a>(node: &'a Yaml<'_>) -> &'a str {
    node.as_str().unwrap()
}

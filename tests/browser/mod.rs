//! The page in a real browser, over lanes that work on real services. Pictures for people to look at lie in `tmp/pictures` of the target
//! folder afterwards.

mod chromium;

use std::process::Command;

use serde_json::Value;

use self::chromium::Chromium;
use crate::end_to_end::{CONTENTS, PARTITIONS, SEED, events, send};
use crate::support::falaj::Falaj;
use crate::support::kafka::Record;
use crate::support::project::{Project, lane, wait_until};
use crate::support::receiver::Receiver;

const UNUSED: &str = "http://127.0.0.1:9/";
const DESK: (u32, u32) = (1280, 900);
const PHONE: (u32, u32) = (360, 740);
/// What the page shows of a lane under a word, as a number.
const COUNT: &str = "((lane, word) => [...document.querySelectorAll(`[aria-labelledby='lane-${lane}'] dl > div`)]
    .filter((pair) => pair.firstElementChild.textContent === word)
    .map((pair) => Number(pair.lastElementChild.textContent.replaceAll(',', '')))[0])";

fn count(browser: &mut Chromium, lane: &str, word: &str) -> f64 {
    browser.get(&format!("{COUNT}('{lane}', '{word}')")).as_f64().unwrap_or(-1.0)
}

async fn metric(page: &str, name: &str, lane: &str) -> f64 {
    let text = reqwest::get(format!("{page}/metrics")).await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}{{lane=\"{lane}\"}} ")));
    line.unwrap_or_else(|| panic!("no {name} of {lane}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_move_are_those_of_the_metrics_and_a_lane_that_stops_is_red_with_its_reason() {
    let project = Project::new(PARTITIONS).await;
    project.fill_content(CONTENTS, SEED);
    project.replace("sinks", "'30s'", "'100ms'");
    let receiver = Receiver::start(project.path("received"));
    let (falaj, page) = project.run(&receiver.url, &[]);
    let events = events(12_000);
    let mut browser = Chromium::start();
    browser.look_like(DESK, "light");
    browser.open(&page);
    browser.wait("document.querySelectorAll('.lane.running').length === 4");
    // From the navigation to the first figures, on a machine that may be at work.
    let loaded_ms = browser.get("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd").as_f64().unwrap();
    assert!(loaded_ms < 1_000.0, "{loaded_ms} ms");

    for part in events.chunks(4_000) {
        let before = count(&mut browser, "top_content", "records");
        send(&project, part);
        browser.wait(&format!("{COUNT}('top_content', 'records') > {before}"));
    }
    let lanes = ["bigquery", "partner", "top_content", "top_content_seconds"];
    for of in lanes {
        browser.wait(&format!("{COUNT}('{of}', 'records') === 12000"));
        for (word, name) in [
            ("records", "falaj_records_total"),
            ("used", "falaj_used_rows_total"),
            ("filtered", "falaj_filtered_rows_total"),
            ("rows written", "falaj_emitted_rows_total"),
            ("epoch", "falaj_epochs_total"),
        ] {
            let mut seen = (0.0, 0.0);
            wait_until(&format!("{word} of {of} are the same: {seen:?}"), async || {
                seen = (count(&mut browser, of, word), metric(&page, name, of).await);
                seen.0 == seen.1
            })
            .await;
        }
    }
    // The board is the one in Redis.
    let shown =
        "[...document.querySelectorAll('.board')].find((board) => board.textContent.includes('top_content_seconds') === false)";
    let leader = project.board("top_content").await[0].clone();
    browser.wait(&format!("{shown}.querySelector('[aria-posinset=\"1\"] .member').textContent === '{}'", leader.0));
    browser.wait(&format!(
        "{shown}.querySelector('[aria-posinset=\"1\"] .score').textContent.replaceAll(',', '') === '{}'",
        leader.1
    ));
    // The wiring: a source, four lanes that ask a lookup, their sinks and the dead letters.
    assert_eq!(browser.get("document.querySelectorAll('#flow .box').length"), 10);
    assert_eq!(browser.get("document.querySelectorAll('#flow .box.step.running').length"), 4);
    assert!(browser.get("document.querySelector('#flow').textContent").as_str().unwrap().contains("asks content"));
    browser.wait("document.querySelector('.lane .spark .line').getAttribute('d').length > 10");
    browser.picture("light");
    browser.has_no_complaint();

    let mut redis = project.redis().await;
    redis::cmd("SET").arg(project.board_key("top_content")).arg("mine").query_async::<()>(&mut redis).await.unwrap();
    send(&project, &events[..100]);
    browser.wait("document.querySelector('.lane.stopped')");
    let red = "getComputedStyle(document.querySelector('.lane.stopped .state')).color";
    assert_eq!(browser.get(red), "rgb(185, 28, 28)");
    let said = browser.get("document.querySelector('.lane.stopped').innerText").as_str().unwrap().to_string();
    assert!(said.starts_with("top_content") && said.contains("holds another type of value"), "{said}");
    assert_eq!(browser.get("document.querySelectorAll('.lane.running').length"), 3);
    assert_eq!(browser.get("document.querySelectorAll('#flow .box.step.stopped').length"), 1);
    browser.wait("document.querySelector('#news').textContent.includes('top_content: stopped')");
    browser.look_like(DESK, "dark");
    assert_ne!(browser.get(red), "rgb(185, 28, 28)");
    browser.picture("dark_stopped");
    browser.has_no_complaint();
    falaj.kill();
    project.finish().await;
}

/// A project of one board, at work on some events.
async fn small() -> (Project, Falaj, String) {
    let project = Project::new(1).await;
    project.fill_content(1, 1);
    project.remove(&["bigquery", "partner", "top_content_seconds"]);
    let (falaj, page) = project.run(UNUSED, &[]);
    (project, falaj, page)
}

fn event(id: u64, content: &str) -> Record {
    let now = chrono::Utc::now().to_rfc3339();
    Record::of(serde_json::json!({"id": id, "content_id": content, "event_ts": now}).to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_from_outside_is_text_and_arabic_is_read_from_right_to_left_also_on_a_phone() {
    let (project, falaj, page) = small().await;
    let hostile = "<img src=x onerror=\"document.title='broken'\">";
    for (id, content) in [hostile, "حكاية القهوة العربية", "حكاية القهوة العربية", "a\u{202e}txt.exe"].into_iter().enumerate()
    {
        project.topic.produce(0, &[event(id as u64, content)]);
    }
    let mut browser = Chromium::start();
    browser.look_like(DESK, "light");
    browser.open(&format!("{page}/?lang=ar"));
    browser.wait("document.querySelectorAll('.member').length === 3");
    assert_eq!(browser.get("[document.documentElement.dir, document.documentElement.lang].join()"), "rtl,ar");
    assert_eq!(browser.get("document.title"), "falaj");
    assert_eq!(browser.get("document.querySelectorAll('#boards img').length"), 0);
    let text = browser.text();
    for part in [hostile, "حكاية القهوة العربية", "المسارات", "يعمل", "العلامة المائية"]
    {
        assert!(text.contains(part), "no {part} in {text}");
    }
    // Places stand at the right, scores at the left; titles of either script keep their own direction.
    let x = |what: &str| format!("document.querySelector('{what}').getBoundingClientRect().x");
    assert_eq!(browser.get(&format!("{} > {}", x(".place"), x(".score"))), true);
    assert_eq!(browser.get("getComputedStyle(document.querySelector('.member')).unicodeBidi"), "isolate");
    // Neither language lacks a word of the other.
    let words = "import('/app/words.js').then(({ALL}) => Object.keys(ALL.EN).join() === Object.keys(ALL.AR).join())";
    assert_eq!(browser.get(words), true);
    // Lanes that have not said yet what they connect are no reason to complain.
    let unwired =
        "{name: 'x', source: '', source_kind: '', lookups: [], sink: '', sink_kind: '', topic: null, state: 'starting'}";
    browser.get(&format!(
        "import('/app/flow.js').then(({{showFlow}}) => showFlow([{unwired}], {{}}, document.createElement('div')))"
    ));
    browser.has_no_complaint();
    browser.picture("arabic");
    for (language, colours) in [("ar", "dark"), ("en", "light")] {
        browser.look_like(PHONE, colours);
        browser.open(&format!("{page}/?lang={language}"));
        browser.wait("document.querySelectorAll('.member').length === 3");
        browser.get("document.querySelectorAll('details').forEach((details) => { details.open = true; })");
        let wide = "[...document.querySelectorAll('body *')].filter((one) => !one.closest('.hidden, .scrolls > *, svg, .skip')
            && one.getClientRects().length && (one.getBoundingClientRect().right > innerWidth + 1 || one.getBoundingClientRect().left < -1))
            .map((one) => one.outerHTML.slice(0, 200)).join()";
        assert_eq!(browser.get(wide), "", "{language}");
        assert_eq!(browser.get("document.documentElement.scrollWidth <= innerWidth"), true);
        browser.picture(&format!("phone_{language}"));
    }
    browser.has_no_complaint();
    falaj.kill();
    project.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keyboard_reaches_everything_and_choices_are_kept() {
    let (project, falaj, page) = small().await;
    let mut browser = Chromium::start();
    browser.look_like(DESK, "light");
    browser.open(&page);
    browser.wait("document.querySelector('.lane.running')");
    let focused = "document.activeElement.id || document.activeElement.className || document.activeElement.tagName";
    browser.press("Tab");
    assert_eq!(browser.get(focused), "skip");
    browser.press("Enter");
    browser.wait("document.activeElement.id === 'main'");
    let mut reached = Vec::new();
    for _ in 0..12 {
        browser.press("Tab");
        reached.push(browser.get(focused).as_str().unwrap_or_default().to_string());
        // Whoever tabs sees where.
        let outline =
            "document.activeElement === document.body || getComputedStyle(document.activeElement).outlineStyle !== 'none'";
        assert_eq!(browser.get(outline), true, "{reached:?}");
    }
    for part in ["flow", "SUMMARY", "card scrolls"] {
        assert!(reached.iter().any(|one| one == part), "no {part} in {reached:?}");
    }
    browser.get("document.getElementById('theme').focus()");
    browser.press(" ");
    browser.press(" ");
    assert_eq!(browser.get("document.documentElement.dataset.theme"), "dark");
    browser.get("document.getElementById('language').focus()");
    browser.press("Enter");
    browser.wait("document.querySelector('#lanes-title').textContent === 'المسارات'");
    browser.open(&page);
    browser.wait("document.querySelector('.lane.running')");
    let kept = "[document.documentElement.dataset.theme, document.documentElement.dir].join()";
    assert_eq!(browser.get(kept), "dark,rtl");
    browser.has_no_complaint();
    falaj.kill();
    project.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_gone_is_said_and_its_successor_is_shown() {
    let (project, falaj, page) = small().await;
    let mut browser = Chromium::start();
    browser.open(&page);
    browser.wait("document.querySelector('.lane.running')");
    falaj.kill();
    browser.wait("document.querySelector('#gone')?.innerText.startsWith('falaj does not answer. It was last seen at ')");
    browser.wait("document.querySelector('main').classList.contains('stale')");
    browser.picture("gone");
    let port = page.rsplit_once(':').unwrap().1;
    project.write("settings", &format!("SET falaj.listen = '127.0.0.1:{port}';"));
    let (falaj, _) = project.run(UNUSED, &[]);
    browser.wait("document.querySelector('#gone').hidden && document.querySelector('.lane.running')");
    // Only of the server that was away.
    browser.forget_complaints();
    wait_until("the lane runs", async || lane(&page, "top_content").await["state"] == "running").await;
    browser.has_no_complaint();
    falaj.kill();
    project.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_token_is_asked_for_the_page_asks_its_reader_and_tls_is_spoken_if_asked() {
    let (mut project, falaj, _) = small().await;
    falaj.kill();
    // Its open files are counted, which it shows to root alone otherwise.
    project.environment.push(("FALAJ_CORE_DUMPS", "true".to_string()));
    let file = |name: &str| project.path(name).display().to_string();
    std::fs::write(project.path("token"), "0123456789abcdef0123\n").unwrap();
    let (key, certificate) = (file("key.pem"), file("certificate.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=falaj",
        ])
        .args([
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let sql = format!(
        "SET falaj.listen = '127.0.0.1:0'; SET falaj.token = '${{file:{}}}'; SET falaj.tls_cert = '{certificate}'; SET falaj.tls_key = '{key}';",
        file("token")
    );
    project.write("settings", &sql);
    let mut falaj = Falaj::start(&mut project.command(&["run", "queries"]));
    let line = falaj.wait_for_line(&["the page is at https://"]);
    let page = line[line.find("https://").unwrap()..].trim_end().trim_end_matches('/').to_string();

    let authority = reqwest::Certificate::from_pem(&std::fs::read(&certificate).unwrap()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    assert_eq!(client.get(format!("{page}/api/v1/status")).send().await.unwrap().status(), 401);
    let known = client.get(format!("{page}/api/v1/status")).bearer_auth("0123456789abcdef0123").send().await.unwrap();
    let known: Value = serde_json::from_str(&known.text().await.unwrap()).unwrap();
    assert!(!known.to_string().contains("0123456789abcdef"));
    assert!(reqwest::get(format!("{page}/livez")).await.is_err(), "nobody vouches for its certificate");

    let status = |more: &[&str]| {
        let output = project.command(&["status", "--url", &page, "--ca-file", &certificate]).args(more).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, said) = status(&["--token-file", &file("token")]);
    assert!(code == Some(0) && said.contains("top_content"), "{said}");
    let (code, said) = status(&[]);
    assert!(code == Some(1) && said.contains("asks for a token: say where it is with --token-file"), "{said}");
    std::fs::write(project.path("other"), "0123456789abcdef0124").unwrap();
    let (code, said) = status(&["--token-file", &file("other")]);
    assert!(code == Some(1) && said.contains("refuses the token of --token-file"), "{said}");

    // Connections that never begin to agree on a cipher give way, too: files are for the lanes.
    let address: std::net::SocketAddr = page.strip_prefix("https://").unwrap().parse().unwrap();
    let before = falaj.open_files();
    let silent: Vec<_> = (0..2_000).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    let (code, said) = status(&["--token-file", &file("token")]);
    assert_eq!(code, Some(0), "{said}");
    assert!(falaj.open_files() < before + 500, "{} files", falaj.open_files());
    drop(silent);

    let mut browser = Chromium::start_trusting_all();
    browser.open(&page);
    browser.wait("document.querySelector('#login')?.hidden === false");
    browser.picture("token");
    for (token, shown) in [
        ("wrong", "!document.querySelector('#refused').hidden"),
        ("0123456789abcdef0123", "document.querySelector('.lane.running')"),
    ] {
        browser.get(&format!(
            "document.querySelector('#token').value = '{token}'; document.querySelector('#login').requestSubmit()"
        ));
        browser.wait(shown);
    }
    assert_eq!(browser.get("document.querySelector('#login').hidden"), true);
    falaj.kill();
    project.finish().await;
}

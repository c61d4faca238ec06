//! `falaj run` and `falaj check`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::{machine, progress, project_dir};
use crate::app::{self, Run, World};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::query::plan::Work;
use crate::secrets::Secrets;
use crate::settings::Settings;
use crate::sink::memory::Boards;
use crate::status::Status;
use crate::web::{Access, Door, Tls, Token, WebState, serve};

/// What `falaj run` takes.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The folder of SQL files
    #[arg(default_value = "queries")]
    pub folder: PathBuf,
    /// Stop when everything up to the log's end, as of the start, is read: `latest`
    #[arg(long, value_name = "latest")]
    pub until: Option<String>,
    /// Do not serve the pages
    #[arg(long)]
    pub no_web: bool,
}

/// What `falaj check` takes.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The folder of SQL files
    #[arg(default_value = "queries")]
    pub folder: PathBuf,
}

/// Runs all lanes of a folder until `stop` is true, or `--until` is reached.
pub async fn run(args: RunArgs, stop: watch::Receiver<bool>) -> Result<()> {
    let until_latest = match args.until.as_deref() {
        None => false,
        Some("latest") => true,
        Some(other) => return Err(Error::new(Kind::Usage, format!("--until '{other}': only 'latest' is known yet"))),
    };
    let (status, boards) = (Status::default(), Boards::default());
    let mut is_served = args.no_web;
    let done = loop {
        let project = project_dir::read_asking(&args.folder, stop.clone()).await?;
        app::check(&project, Secrets::Needed).await?;
        if !std::mem::replace(&mut is_served, true) {
            let door = open_pages(project.settings()).await?;
            let url = serve_pages(door, &status, &boards, stop.clone())?;
            tracing::info!("the page is at {url}");
        }
        let memory = machine::memory(project.settings());
        let (world, clock) = (World::Real, Clock::system());
        let reload = watch::Sender::new(false);
        let ended = either(stop.clone(), reload.subscribe());
        let (status, boards) = (status.clone(), boards.clone());
        let run =
            Run { world, status: status.clone(), memory, boards, clock, until_latest, stop: ended, reload: reload.clone() };
        let done = tokio::select! {
            done = app::run(&project, run) => done,
            () = progress::show_copies(status) => Ok(()),
        };
        if done.is_err() || *stop.borrow() || !*reload.borrow() {
            break done;
        }
        tracing::info!("a backfill has handed over a result of other SQL: {} is read again", args.folder.display());
    };
    for lane in status.snapshot().lanes {
        tracing::info!(
            "lane '{}': {} records, {} rows written, {} dead letters",
            lane.name,
            lane.records,
            lane.emitted,
            lane.dead + lane.late
        );
    }
    done
}

/// Becomes true when one of the two does.
fn either(mut one: watch::Receiver<bool>, mut other: watch::Receiver<bool>) -> watch::Receiver<bool> {
    let (sender, either) = watch::channel(false);
    tokio::spawn(async move {
        let becomes_true = tokio::select! {
            one = one.wait_for(|one| *one) => one.is_ok(),
            other = other.wait_for(|other| *other) => other.is_ok(),
        };
        if becomes_true {
            sender.send_replace(true);
        }
        // As long as somebody listens: a channel without a sender would say that it is over.
        sender.closed().await;
    });
    either
}

/// Listens where the pages are to be served, for those who may see them.
pub async fn open_pages(settings: &Settings) -> Result<Door> {
    let access = match settings.token.0.as_str() {
        "" => Access::Loopback,
        reference => {
            let wrong = |problem: String| Error::new(Kind::Sql, format!("SET falaj.token {problem}"));
            let token = Secrets::Needed.text(reference).map_err(wrong)?;
            Access::Token(Token::new(token).map_err(|problem| wrong(format!("= '{reference}' {problem}")))?)
        }
    };
    let tls = match (settings.tls_cert.as_str(), settings.tls_key.as_str()) {
        ("", "") => None,
        ("", _) | (_, "") => {
            return Err(Error::new(Kind::Sql, "SET falaj.tls_cert and falaj.tls_key go together: a certificate has a key"));
        }
        (certificate, key) => Some(Tls::read(certificate.as_ref(), key.as_ref())?),
    };
    let bound = TcpListener::bind(&settings.listen).await.and_then(TcpListener::into_std);
    let listener = bound.map_err(|cause| {
        let text = format!(
            "the pages cannot be served at {}: SET falaj.listen = '127.0.0.1:0' takes a free port, --no-web serves none",
            settings.listen
        );
        Error::new(Kind::Usage, text).because(cause)
    })?;
    Ok(Door { listener, access, tls })
}

/// Serves the pages until `stop`; gives the front page's URL. A thread of their own does so, which gives way to those of the lanes.
pub fn serve_pages(door: Door, status: &Status, boards: &Boards, mut stop: watch::Receiver<bool>) -> Result<String> {
    let url = format!("{}://{}/", if door.tls.is_some() { "https" } else { "http" }, door.address()?);
    let boards = boards.clone();
    let state = WebState::new(status.clone(), Arc::new(move || boards.all()));
    let stopped = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let failed = |cause| Error::new(Kind::Bug, "the pages have no thread").because(cause);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let serves = move || {
        machine::give_way();
        if let Err(error) = runtime.block_on(serve(door, state, stopped)) {
            tracing::error!("{}", error.chain());
        }
    };
    std::thread::Builder::new().name("pages".to_string()).spawn(serves).map_err(failed)?;
    Ok(url)
}

/// Plans everything and says what each lane does. No network.
pub async fn check(args: CheckArgs) -> Result<()> {
    let project = project_dir::read(&args.folder).await?;
    for plan in app::check(&project, Secrets::Optional).await? {
        let columns: Vec<&str> = plan.columns.iter().map(String::as_str).collect();
        let work = match &plan.work {
            Work::Rows(_) => "row by row".to_string(),
            Work::Windows(windows) => {
                let seconds = |ns: i64| ns as f64 / 1e9;
                format!("windows of {} s, each {} s", seconds(windows.spec.size_ns), seconds(windows.spec.slide_ns))
            }
        };
        println!("{}: {} → {} ({work}); decodes {}", plan.name, plan.source.name, plan.sink.name, columns.join(", "));
    }
    println!("{}: fine", args.folder.display());
    Ok(())
}

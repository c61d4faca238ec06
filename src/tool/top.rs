//! `falaj top`: what a running falaj does, live in another terminal. It asks the page of that process.

use std::time::Duration;

use clap::Args;
use tokio::sync::watch;

use super::board::Screen;
use super::remote::{Remote, RemoteArgs};
use crate::error::{Error, Kind, Result};

/// How often it asks, and how often it looks at the keyboard.
const ASK_EVERY: Duration = Duration::from_millis(500);
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// What `falaj top` takes.
#[derive(Debug, Args)]
pub struct TopArgs {
    #[command(flatten)]
    remote: RemoteArgs,
}

/// Shows it until q is pressed or `stop` is true. The error says that nobody answers at the start; later the last figures stay, with
/// that sentence under them.
pub async fn run(args: TopArgs, stop: watch::Receiver<bool>) -> Result<()> {
    let remote = Remote::new(&args.remote)?;
    let (answer, _) = remote.ask().await?;
    let mut screen = Screen::start(&format!("falaj {}", answer.version))?;
    if !screen.is_drawn() {
        let text = "falaj top draws on a terminal, and this is none: falaj status prints the same";
        return Err(Error::new(Kind::Usage, text));
    }
    let (send, newest) = watch::channel((answer, String::new()));
    // So that keys are heard while nobody answers.
    let asks = tokio::spawn(async move {
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            match remote.ask().await {
                Ok((newer, _)) => drop(send.send_replace((newer, String::new()))),
                Err(error) => send.send_modify(|(_, footer)| *footer = error.to_string()),
            }
        }
    });
    while !screen.quit_requested() && !*stop.borrow() {
        let (answer, footer) = newest.borrow().clone();
        screen.draw(&answer.status, &answer.boards, &footer)?;
        tokio::time::sleep(DRAW_EVERY).await;
    }
    asks.abort();
    Ok(())
}

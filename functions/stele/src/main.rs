//! `stele`: the all-in-one server and the operator's command line.

mod cli;
mod client;
mod commands;
mod deletion;
mod drill;
mod host_metrics;
mod import;
mod in_place;
mod jobs;
mod output;
#[cfg(test)]
mod readme;
mod retention;
mod serve;
mod settings;
mod snapshots;
mod status;
mod stores;
mod tiers;
mod tokens;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command};

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("stele: {}", output::escape(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let config = stele_runtime::Config::from_env()?;
    match cli.command {
        Command::Serve(args) => serve::run(args, config).await.map(|()| ExitCode::SUCCESS),
        Command::Sql(args) => commands::sql(args, config).await,
        Command::Settle(args) => commands::settle(args, config).await,
        Command::Rollups(args) => commands::rollups(args, config).await,
        Command::Import(args) => import::run(args, config).await,
        Command::Retention(args) => retention::run(args, config).await,
        Command::Snapshot(args) => snapshots::run(args, config).await,
        Command::Undelete(args) => snapshots::undelete(args, config).await,
        Command::Tier(args) => tiers::run(args, config).await,
        Command::Deletion(args) => deletion::run(args, config).await,
        Command::Drill(args) => drill::run(args, config).await,
        Command::Token(args) => tokens::run(args, config).await,
        Command::Verify(args) => commands::verify_store(args, config).await,
        Command::Status(args) => commands::status(args, config).await,
    }
}

//! `config show`, `config check`, `config path`.

use std::io::Write;

use clap::Subcommand;
use serde_json::json;

use super::{Context, Exit, Failure};
use crate::config::Value;

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Every setting with its value.
    Show {
        /// Say where each value comes from.
        #[arg(long)]
        origin: bool,
        #[arg(long)]
        json: bool,
    },
    /// Check the file, the environment and the flags; exit 78 names what is wrong.
    Check,
    /// Path of the configuration file.
    Path,
}

pub fn run(ctx: &Context, command: &ConfigCommand, out: &mut impl Write) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Show { origin, json } => show(ctx, *origin, *json, out),
        ConfigCommand::Check => {
            ctx.checked()?;
            writeln!(out, "ok")?;
            Ok(Exit::OK)
        }
        ConfigCommand::Path => {
            writeln!(out, "{}", ctx.home.config_file().display())?;
            Ok(Exit::OK)
        }
    }
}

fn show(ctx: &Context, origin: bool, json: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let shown = |key: &crate::config::Key, value: &Value| match value {
        Value::Text(text) if key.secret && text.contains('@') => Value::Text("(hidden)".to_owned()),
        Value::Int(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => value.clone(),
    };
    if json {
        let items: Vec<_> = ctx
            .loaded
            .values
            .iter()
            .map(|(key, value, from)| {
                let value = match shown(key, value) {
                    Value::Int(n) => json!(n),
                    Value::Text(s) => json!(s),
                    Value::List(l) => json!(l),
                    Value::Map(m) => json!(m),
                };
                json!({ "key": key.name, "value": value, "origin": from.to_string() })
            })
            .collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&items).map_err(anyhow::Error::from)?)?;
    } else {
        for (key, value, from) in &ctx.loaded.values {
            let value = shown(key, value);
            if origin {
                writeln!(out, "{} = {value}  # {from}", key.name)?;
            } else {
                writeln!(out, "{} = {value}", key.name)?;
            }
        }
    }
    ctx.checked()?;
    Ok(Exit::OK)
}

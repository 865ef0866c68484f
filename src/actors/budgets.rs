//! Looks at the budgets while rows come in, and tells the desktop and a webhook, if the user wants
//! that, when one passes a threshold. Nothing waits for it; what fails is a line in the log.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};
use arc_swap::ArcSwap;
use jiff::ZonedDateTime;
use serde_json::{Value, json};
use slog::Logger;

use super::meter::Meter;
use crate::beat;
use crate::config::{Config, Webhook};
use crate::home::Home;
use crate::meter::budget::webhook;
use crate::meter::budget::{self, Channel, Standing, claim};
use crate::platform;
use crate::supervisor::journal::Note;
use crate::supervisor::{Birth, Child, Journal};
use crate::threads;

const LOOKS: Duration = Duration::from_secs(2);
/// Also without new rows: a price or the day may have changed.
const ANYWAY: Duration = Duration::from_secs(60);
/// What the desktop's tool may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the actor is made of.
#[derive(Clone, Debug)]
pub struct BudgetParts {
    pub home: Home,
    pub config: Arc<ArcSwap<Config>>,
    pub meter: Meter,
    pub journal: Journal,
    pub log: Logger,
}

/// The actor.
#[derive(Debug)]
pub struct Budgets {
    birth: Birth,
    parts: BudgetParts,
    /// Rows that were written when it looked last, and the file of budgets.
    seen: Option<(u64, Option<SystemTime>)>,
    looked: Option<Instant>,
    looking: bool,
    told: u64,
}

impl Budgets {
    #[must_use]
    pub fn new(birth: Birth, parts: BudgetParts) -> Self {
        Self { birth, parts, seen: None, looked: None, looking: false, told: 0 }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let wanted = self.parts.config.load().budgets.clone();
        if self.looking || !(wanted.desktop || wanted.webhook.is_some()) {
            return;
        }
        let file = fs::metadata(self.parts.home.budgets_file()).ok();
        let seen =
            (self.parts.meter.intake().stats().written, file.and_then(|file| file.modified().ok()));
        let long_ago = self.looked.is_none_or(|at| at.elapsed() >= ANYWAY);
        if self.seen == Some(seen) && !long_ago {
            return;
        }
        (self.seen, self.looked, self.looking) = (Some(seen), Some(Instant::now()), true);
        let parts = self.parts.clone();
        let work = async move { tell(&parts, wanted.desktop, wanted.webhook).await };
        ctx.spawn(work.into_actor(self).map(|told, actor, _| {
            actor.looking = false;
            actor.told += told;
        }));
    }
}

/// How many were told.
async fn tell(parts: &BudgetParts, desktop: bool, hook: Option<Webhook>) -> u64 {
    let reader = parts.clone();
    let channels = [(Channel::Desktop, desktop), (Channel::Webhook, hook.is_some())];
    let found = threads::blocking(move || {
        let now = ZonedDateTime::now();
        let standings = budget::standings(&reader.home, &now).map_err(|e| e.to_string())?;
        let mut news = Vec::new();
        for (channel, _) in channels.into_iter().filter(|(_, wanted)| *wanted) {
            let claimed = claim(&reader.home, channel, &standings, &now);
            let claimed = claimed.map_err(|e| e.to_string())?;
            news.extend(claimed.into_iter().map(|standing| (channel, standing)));
        }
        Ok::<_, String>(news)
    });
    let news = match found.await {
        Ok(Ok(news)) => news,
        Ok(Err(e)) => {
            slog::warn!(parts.log, "the budgets can't be looked at"; "error" => e);
            return 0;
        }
        Err(e) => {
            slog::warn!(parts.log, "the budgets can't be looked at"; "error" => %e);
            return 0;
        }
    };
    let count = news.len() as u64;
    for (channel, standing) in news {
        let result = match (channel, &hook) {
            (Channel::Webhook, Some(hook)) => post(parts, hook, &standing).await,
            (Channel::Desktop | Channel::Run | Channel::Webhook, _) => show(&standing).await,
        };
        note(parts, channel, &standing, result);
    }
    count
}

async fn post(parts: &BudgetParts, hook: &Webhook, standing: &Standing) -> Result<(), String> {
    let upstream = parts.config.load().upstream.clone();
    let trust = parts.meter.known_keys().map(|keys| keys.trust.load_full());
    let document = webhook::document(standing, &standing.line());
    webhook::post(hook, &document, trust.as_deref(), &upstream).await.map_err(|e| e.to_string())
}

async fn show(standing: &Standing) -> Result<(), String> {
    let command = platform::notification("Halton Meter", &standing.line());
    let [program, arguments @ ..] = command.as_slice() else { return Err("no tool".to_owned()) };
    let (program, arguments) = (program.clone(), arguments.to_vec());
    let shown = threads::blocking(move || {
        platform::run_bounded(&program, &arguments, PATIENCE).map_err(|e| format!("{program}: {e}"))
    });
    shown.await.unwrap_or_else(|e| Err(e.to_string()))
}

fn note(parts: &BudgetParts, channel: Channel, standing: &Standing, result: Result<(), String>) {
    let (budget, channel) = (&standing.budget.name, channel.as_str());
    match result {
        Ok(()) => {
            slog::info!(parts.log, "a budget's threshold was told";
                "budget" => budget, "percent" => standing.percent(), "channel" => channel);
            parts.journal.append(Note::new("budget_told").cause(format!("{budget}: {channel}")));
        }
        Err(why) => {
            slog::warn!(parts.log, "a budget's threshold could not be told";
                "budget" => budget, "channel" => channel, "error" => &why);
            let cause = format!("{budget}: {channel}: {why}");
            parts.journal.append(Note::new("budget_not_told").cause(cause));
        }
    }
}

impl Actor for Budgets {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        beat::keep(ctx, LOOKS, Self::look);
        self.birth.ready();
    }
}

impl Child for Budgets {
    fn observe(&self) -> Value {
        json!({ "looking": self.looking, "told": self.told })
    }
}

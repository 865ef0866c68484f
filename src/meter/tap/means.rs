//! What a connection is served with: the tap's own means, or those of a running self-test, whose
//! rows, trust and bypass list are apart from the user's.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::sleep;
use uuid::Uuid;

use super::Tap;
use super::bypass::Bypass;
use crate::config::{Config, ConnectRule, SELFTEST_HOST, is_selftest};
use crate::meter::ledger::{Writer, WriterConfig, start_writer};
use crate::meter::observer::RowSink;
use crate::meter::trust::Trust;
use crate::notice::{self, Notice};
use crate::threads;

/// How often the end of a self-test is looked for.
const LOOK: Duration = Duration::from_millis(250);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Means {
    pub config: Arc<Config>,
    pub trust: Arc<Trust>,
    pub sink: Arc<dyn RowSink>,
    pub bypass: Arc<Bypass>,
    /// The one name that may be asked for.
    only: Option<&'static str>,
}

impl Means {
    /// For a connection to `host`. `None`: the self-test's host without a self-test.
    pub(super) async fn of(tap: &Arc<Tap>, host: &str) -> Option<Self> {
        if is_selftest(host) {
            let notice = notice::current_for(&tap.deps.home, host).await?;
            let tap = Arc::clone(tap);
            // It opens a ledger: the bytes of others must not wait for that.
            let trial = threads::blocking(move || trial(&tap, &notice));
            return Some(trial.await.ok()??.means);
        }
        Some(Self {
            config: tap.deps.config.load_full(),
            trust: tap.deps.trust.load_full(),
            sink: Arc::clone(&tap.deps.sink),
            bypass: Arc::clone(&tap.deps.bypass),
            only: None,
        })
    }

    pub(super) fn cover(&self, name: &str) -> bool {
        self.only.is_none_or(|only| name.eq_ignore_ascii_case(only))
    }
}

/// One run of the self-test, kept between its connections.
#[derive(Clone)]
pub(super) struct Trial {
    id: Uuid,
    means: Means,
    /// Ends with the trial.
    _writer: Arc<Writer>,
}

impl std::fmt::Debug for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trial").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Trial {
    fn begin(tap: &Tap, notice: &Notice) -> Option<Self> {
        let root = CertificateDer::from_pem_slice(notice.root_pem.as_bytes()).ok()?;
        // What goes wrong with a throw-away ledger is nothing that the daemon's log should tell.
        let log = slog::Logger::root(slog::Discard, slog::o!());
        let (intake, writer) =
            start_writer(WriterConfig::new(&tap.deps.home.selftest(), log)).ok()?;
        let mut config = Config::clone(&tap.deps.config.load());
        config.upstream.connect = vec![ConnectRule { host: None, port: 443, to: notice.origin }];
        let means = Means {
            config: Arc::new(config),
            trust: Arc::new(Trust::only(root)),
            sink: Arc::new(intake),
            bypass: Arc::default(),
            only: Some(SELFTEST_HOST),
        };
        Some(Self { id: notice.id, means, _writer: Arc::new(writer) })
    }
}

/// The trial of this notice; the first connection begins it.
fn trial(tap: &Arc<Tap>, notice: &Notice) -> Option<Trial> {
    let mut current = tap.trial.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(trial) = current.as_ref().filter(|trial| trial.id == notice.id) {
        return Some(trial.clone());
    }
    let trial = Trial::begin(tap, notice)?;
    *current = Some(trial.clone());
    tokio::spawn(end_with(Arc::downgrade(tap), notice.id));
    Some(trial)
}

/// Forgets the trial once nobody stands behind its notice any more.
async fn end_with(tap: std::sync::Weak<Tap>, id: Uuid) {
    loop {
        sleep(LOOK).await;
        let Some(tap) = tap.upgrade() else { return };
        let (home, host) = (tap.deps.home.clone(), SELFTEST_HOST);
        if notice::current_for(&home, host).await.is_some_and(|notice| notice.id == id) {
            continue;
        }
        let mut current = tap.trial.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|trial| trial.id == id) {
            *current = None;
        }
        return;
    }
}

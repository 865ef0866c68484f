//! The processes as the service manager keeps them, once `init` has installed services. Then it alone
//! starts and stops them: there are never two trees.

use std::sync::mpsc;
use std::time::Duration;

use super::{Context, say};
use crate::platform::{self, Service, ServiceManager, ServiceState, User};
use crate::setup::{self, Mode, Os, Step, StepError};

/// Who keeps the processes.
pub struct Services {
    manager: Box<dyn ServiceManager>,
    user: User,
}

/// `None`: nothing is installed for this home, or its manager is out of reach (a container, a login
/// without a session): then the embedded root does it.
pub fn installed(ctx: &Context) -> Option<Services> {
    Mode::installed(&ctx.home)?;
    let manager = platform::service_manager()?;
    let user = User::from_env()?;
    manager.missing().is_none().then_some(Services { manager, user })
}

/// Whether what runs is theirs.
pub fn keep(ctx: &Context) -> bool {
    let Some(services) = installed(ctx) else { return false };
    services.pid(Service::Edge).is_some() || services.pid(Service::Daemon).is_some()
}

impl Services {
    pub fn name(&self) -> &'static str {
        self.manager.name()
    }

    pub fn state(&self, service: Service) -> Option<ServiceState> {
        self.manager.state(&self.user, service).ok()
    }

    pub fn pid(&self, service: Service) -> Option<u32> {
        self.state(service)?.pid
    }

    /// Within this time. `false`: they can't be started so.
    pub fn start(&self, services: &[Service], patience: Duration) -> bool {
        let steps = self.manager.start(&self.user, services);
        let (tell, told) = mpsc::channel();
        // A manager that hangs must not keep a command from running.
        let started = std::thread::Builder::new().name("services".to_owned()).spawn(move || {
            let _ = tell.send(run(&steps));
        });
        match started.map(|_| told.recv_timeout(patience)) {
            Ok(Ok(Ok(()))) => true,
            Ok(Ok(Err(e))) => self.complain(&e),
            Ok(Err(_)) => self.complain(&"it does not answer"),
            Err(e) => self.complain(&e),
        }
    }

    pub fn stop(&self, services: &[Service]) {
        if let Err(e) = run(&self.manager.stop(&self.user, services)) {
            self.complain(&e);
        }
    }

    pub fn restart(&self, services: &[Service]) {
        if let Err(e) = run(&self.manager.restart(&self.user, services)) {
            self.complain(&e);
        }
    }

    fn complain(&self, why: &dyn std::fmt::Display) -> bool {
        say(format_args!("{}: {why}", self.name()));
        false
    }
}

/// One after the other, each of them even if one fails: nothing of it is to be taken back.
fn run(steps: &[Step]) -> Result<(), StepError> {
    let mut os = Os::default();
    let mut failure = Ok(());
    for step in steps {
        failure = failure.and(setup::perform(&mut os, step));
    }
    failure
}

//! The processes as the service manager keeps them, once `init` has installed services. Then it alone
//! starts and stops them: there are never two trees.

use super::Context;
use crate::platform::{self, Service, ServiceManager, User};
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

    pub fn pid(&self, service: Service) -> Option<u32> {
        self.manager.state(&self.user, service).ok()?.pid
    }

    pub fn start(&self, services: &[Service]) -> Result<(), StepError> {
        run(&self.manager.start(&self.user, services))
    }

    pub fn stop(&self, services: &[Service]) -> Result<(), StepError> {
        run(&self.manager.stop(&self.user, services))
    }

    pub fn restart(&self, services: &[Service]) -> Result<(), StepError> {
        run(&self.manager.restart(&self.user, services))
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

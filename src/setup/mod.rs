//! Changing the user's machine: what `init`, `uninstall` and `ca trust` do, as steps that are shown
//! first, done all or none, and taken back after a failure or a kill.
//!
//! The platform plans its own ([`crate::platform`]), [`plan`] puts them in order, [`execute()`] is the
//! only thing that acts.

pub mod diff;
mod execute;
mod journal;
mod machine;
pub mod plan;
pub mod section;
pub mod shell;
mod state;
mod step;

pub use execute::{Failed, StepError, call, execute, perform, recover};
pub use machine::{Blob, Machine, Os, Said};
pub use state::{Mode, SystemState};
pub use step::{Answer, Call, Check, Step, as_root, quoted};

//! Changing the user's machine: what `init`, `uninstall` and `ca trust` do, as steps that are shown
//! first, done all or none, and taken back after a failure or a kill.
//!
//! The platform plans ([`crate::platform`]), [`execute`] is the only thing that acts.

mod execute;
mod journal;
mod machine;
pub mod section;
mod step;

pub use execute::{Failed, StepError, call, execute, recover};
pub use machine::{Blob, Machine, Os, Said};
pub use step::{Answer, Call, Check, Step, as_root, quoted};

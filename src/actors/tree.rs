//! The daemon's tree.

use super::admin::dto::ActorAnswer;

#[derive(Clone, Debug, Default)]
pub struct View;

impl View {
    pub async fn observe(&self) -> Vec<ActorAnswer> {
        Vec::new()
    }
}

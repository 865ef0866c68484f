//! `/v1/projects`: what `project list` shows.

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use utoipa::IntoParams;

use super::problem::Problem;
use super::reads::read;
use super::routes::Api;
use super::rows::window;

/// A time range.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ProjectsQuery {
    /// From this moment on: a timestamp, or a span back from now (`30m`, `12h`, `7d`). Default `30d`.
    since: Option<String>,
    /// Before this moment.
    until: Option<String>,
}

/// Projects, by what they cost.
#[utoipa::path(
    get,
    tag = "ledger",
    path = "/v1/projects",
    params(ProjectsQuery),
    security(("token" = [])),
    responses(
        (status = 200, description = "as `project list --json`", body = Object),
        (status = 400, description = "a parameter is wrong", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "the ledger can't be read", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_projects(
    api: web::Data<Api>,
    query: web::Query<ProjectsQuery>,
) -> Result<HttpResponse, Problem> {
    let window = window(query.since.as_deref(), query.until.as_deref())?;
    let projects = read(&api, move |ledger| ledger.projects(window)).await?;
    Ok(HttpResponse::Ok().json(serde_json::json!({ "projects": projects })))
}

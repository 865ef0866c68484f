//! The clients that stay raw because they did not accept our certificate: shown, and let try again.

use std::time::Duration;

use actix_web::{HttpResponse, web};

use super::dto::{BypassAnswer, BypassEntry, ClearedAnswer, NoQuery};
use super::problem::Problem;
use super::routes::Api;

/// A daemon that is killed after the answer has no list to leave. A disk that hangs holds nobody up.
const SAVED: Duration = Duration::from_secs(1);

pub(super) fn entries(api: &Api) -> Vec<BypassEntry> {
    let tap = api.meter.tap();
    tap.map(|tap| tap.bypassed()).unwrap_or_default().into_iter().map(BypassEntry::from).collect()
}

/// Who stays raw, for which host, until when.
#[utoipa::path(
    get,
    path = "/v1/bypass",
    security(("token" = [])),
    responses(
        (status = 200, description = "the list", body = BypassAnswer),
        (status = 400, description = "it has no parameters", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_bypass(api: web::Data<Api>, _: web::Query<NoQuery>) -> HttpResponse {
    HttpResponse::Ok().json(BypassAnswer { bypass: entries(&api) })
}

/// Clears the list: the next connection of everybody on it is metered, if the client lets it.
#[utoipa::path(
    delete,
    path = "/v1/bypass",
    security(("token" = [])),
    responses(
        (status = 200, description = "cleared", body = ClearedAnswer),
        (status = 400, description = "it has no parameters", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "no tap is running, so there is no list", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete_bypass(
    api: web::Data<Api>,
    _: web::Query<NoQuery>,
) -> Result<HttpResponse, Problem> {
    let tap = api.meter.tap().ok_or_else(|| Problem::unavailable("the tap is not running"))?;
    let cleared = tap.clear_bypass();
    api.meter.save_bypass(SAVED).await;
    Ok(HttpResponse::Ok().json(ClearedAnswer { cleared }))
}

//! `/v1/pricing`, `/v1/quotas`, `/v1/budgets`: what the commands of the same names show.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use jiff::{Timestamp, ZonedDateTime};
use serde::Serialize;
use utoipa::ToSchema;

use super::dto::NoQuery;
use super::problem::Problem;
use super::reads::read;
use super::routes::Api;
use crate::actors::prices::Look;
use crate::meter::budget::{self, Budget};
use crate::meter::ledger::{LedgerError, Quota};

/// For the prices that have changed to be in force.
const TAKEN: Duration = Duration::from_secs(1);

/// What became of the user's own prices.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PricesAnswer {
    /// How many are in force.
    own: Option<usize>,
    /// Why those of before still are.
    problem: Option<String>,
}

/// `/v1/quotas`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QuotasAnswer {
    quotas: Vec<Quota>,
}

/// The prices in force, the user's own in front of the list.
#[utoipa::path(
    get,
    tag = "money",
    path = "/v1/pricing",
    security(("token" = [])),
    responses(
        (status = 200, description = "as `pricing list --json`", body = Object),
        (status = 400, description = "it has no parameters", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_pricing(api: web::Data<Api>, _: web::Query<NoQuery>) -> HttpResponse {
    let book = api.meter.book().load_full();
    let prices = book.prices(Timestamp::now());
    HttpResponse::Ok().json(serde_json::json!({ "book": book.date(), "prices": prices }))
}

/// Takes the user's own prices over as the file has them now: what ends from then on is priced so.
#[utoipa::path(
    post,
    tag = "money",
    path = "/v1/pricing",
    security(("token" = [])),
    responses(
        (status = 200, description = "what is in force now", body = PricesAnswer),
        (status = 400, description = "it has no parameters", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "nobody takes them over", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn post_pricing(
    api: web::Data<Api>,
    _: web::Query<NoQuery>,
) -> Result<HttpResponse, Problem> {
    let gone = || Problem::unavailable("the prices' actor does not answer");
    let prices = api.meter.prices().ok_or_else(gone)?;
    let looked = tokio::time::timeout(TAKEN, prices.send(Look)).await;
    let (own, problem) = match looked.map_err(|_| gone())?.map_err(|_| gone())? {
        Ok(own) => (Some(own), None),
        Err(problem) => (None, Some(problem)),
    };
    Ok(HttpResponse::Ok().json(PricesAnswer { own, problem }))
}

/// The limits of plans, as the providers told them last.
#[utoipa::path(
    get,
    tag = "money",
    path = "/v1/quotas",
    security(("token" = [])),
    responses(
        (status = 200, description = "the limits", body = QuotasAnswer),
        (status = 400, description = "it has no parameters", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "the ledger can't be read", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_quotas(
    api: web::Data<Api>,
    _: web::Query<NoQuery>,
) -> Result<HttpResponse, Problem> {
    let quotas = read(&api, crate::meter::ledger::Ledger::quotas).await?;
    Ok(HttpResponse::Ok().json(QuotasAnswer { quotas }))
}

/// How the budgets stand.
#[utoipa::path(
    get,
    tag = "money",
    path = "/v1/budgets",
    security(("token" = [])),
    responses(
        (status = 200, description = "as `budget list --json`; `problem`: why no budget can be read",
            body = Object),
        (status = 400, description = "it has no parameters", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "the ledger can't be read", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_budgets(
    api: web::Data<Api>,
    _: web::Query<NoQuery>,
) -> Result<HttpResponse, Problem> {
    let (budgets, problem): (Vec<Budget>, _) = match budget::read(&api.home.budgets_file()) {
        Ok(budgets) => (budgets, None),
        Err(problem) => (Vec::new(), Some(problem.to_string())),
    };
    let standings = read(&api, move |ledger| {
        let now = ZonedDateTime::now();
        budgets.iter().map(|b| b.standing(ledger, &now)).collect::<Result<Vec<_>, LedgerError>>()
    });
    Ok(HttpResponse::Ok()
        .json(serde_json::json!({ "budgets": standings.await?, "problem": problem })))
}

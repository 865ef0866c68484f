//! The OpenAPI document.

use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, PathItem, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::problem::Problem;
use super::routes::{
    __path_get_actors, __path_get_events, __path_get_health, __path_get_openapi, __path_get_ready,
    __path_get_status,
};
use super::session::{COOKIE, KEY_HEADER};
use super::{bypass, dashboard, metrics, money, projects, rows};

/// It is also at `/openapi.json`.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Halton Meter admin API",
        description = "Loopback only. Everything but /health needs the bearer token of run/token; for what only \
                       reads, cookie and key of a dashboard's session will do. What can be got with GET can be \
                       asked for with HEAD. Errors are RFC 9457 problem documents.",
        license(name = "Apache-2.0")
    ),
    paths(
        get_health, get_ready, metrics::get_metrics, get_openapi, get_status, get_actors, rows::get_requests,
        rows::get_stats, rows::get_coverage, rows::get_flush, get_events, bypass::get_bypass,
        bypass::delete_bypass, money::get_pricing, money::post_pricing, money::get_quotas, money::get_budgets, projects::get_projects,
        dashboard::post_code, dashboard::post_session, dashboard::delete_session
    ),
    components(schemas(Problem)),
    modifiers(&Secrets, &Refusals)
)]
struct Document;

struct Secrets;

impl Modify for Secrets {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
        let cookie = ApiKey::Cookie(ApiKeyValue::new(COOKIE));
        components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
        let key = ApiKey::Header(ApiKeyValue::new(KEY_HEADER));
        components.add_security_scheme("key", SecurityScheme::ApiKey(key));
    }
}

/// What any resource can answer before it is asked.
struct Refusals;

impl Modify for Refusals {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for item in document.paths.paths.values_mut() {
            let PathItem { get, post, delete, .. } = item;
            for operation in [get, post, delete].into_iter().flatten() {
                refuse(operation);
            }
        }
    }
}

fn refuse(operation: &mut Operation) {
    let secret = operation.security.is_some();
    let mut refusals = vec![
        ("403", "Origin is another page's; or it is not for a session, which only reads"),
        ("421", "Host is not this machine"),
    ];
    if secret {
        refusals.push(("401", "no valid token, and no session that would do"));
    }
    let responses = &mut operation.responses.responses;
    for (status, why) in refusals {
        responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(problem(why)));
    }
    // Of a head that does not come, which no handler sees.
    let late = ResponseBuilder::new().description("the request did not come in time").build();
    responses.entry("408".to_owned()).or_insert(RefOr::T(late));
}

fn problem(why: &str) -> Response {
    let schema = Ref::from_schema_name("Problem");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(why).content("application/problem+json", content).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The object's fields, which must be there.
    fn required(value: &serde_json::Value, names: &[&str], place: &str) {
        for name in names {
            let text = value[name].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{place}: no {name}");
        }
    }

    #[test]
    fn it_has_what_the_specification_requires() {
        let document = serde_json::to_value(openapi()).unwrap();
        required(&document, &["openapi"], "the document");
        required(&document["info"], &["title", "version"], "info");
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let place = format!("{method} {path}");
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    required(parameter, &["name", "in"], &place);
                }
                let responses = operation["responses"].as_object().unwrap();
                assert!(responses.keys().any(|status| status.starts_with('2')), "{place}");
                for (status, response) in responses {
                    required(response, &["description"], &format!("{place}: {status}"));
                }
                for status in ["403", "408", "421"] {
                    assert!(responses.contains_key(status), "{place}: {status}");
                }
                let secret = operation.get("security").is_some();
                let login = (method.as_str(), path.as_str()) == ("post", "/v1/session");
                assert_eq!(responses.contains_key("401"), secret || login, "{place}");
                assert!(!path.starts_with("/v1/") || responses.contains_key("400"), "{place}");
            }
        }
        for (name, scheme) in document["components"]["securitySchemes"].as_object().unwrap() {
            required(scheme, &["type"], name);
        }
    }

    #[test]
    fn no_field_is_told_twice_in_parts_that_must_all_hold() {
        let document = serde_json::to_value(openapi()).unwrap();
        let schemas = &document["components"]["schemas"];
        for (name, schema) in schemas.as_object().unwrap() {
            let mut seen = std::collections::HashSet::new();
            for part in schema["allOf"].as_array().into_iter().flatten() {
                let target = part["$ref"].as_str().and_then(|r| r.rsplit('/').next());
                let part = target.map_or(part, |target| &schemas[target]);
                for field in part["properties"].as_object().into_iter().flat_map(|p| p.keys()) {
                    assert!(seen.insert(field.clone()), "{name}: {field}");
                }
            }
        }
    }
}

//! What the API's document says of refusals that several resources have: named, with each resource.

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

pub(super) enum NoParameters {}

pub(super) enum WrongParameter {}

pub(super) enum NoToken {}

pub(super) enum NoLedger {}

type Responses = BTreeMap<String, RefOr<Response>>;

impl IntoResponses for NoParameters {
    fn responses() -> Responses {
        refusal("400", "it has no parameters")
    }
}

impl IntoResponses for WrongParameter {
    fn responses() -> Responses {
        refusal("400", "a parameter is wrong")
    }
}

impl IntoResponses for NoToken {
    fn responses() -> Responses {
        refusal("401", "no valid token")
    }
}

impl IntoResponses for NoLedger {
    fn responses() -> Responses {
        refusal("503", "the ledger can't be read")
    }
}

fn refusal(status: &str, description: &str) -> Responses {
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response = ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", problem)
        .build();
    BTreeMap::from([(status.to_owned(), RefOr::T(response))])
}

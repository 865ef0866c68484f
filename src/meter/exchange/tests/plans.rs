//! What a plan covers, told by the credentials and by the limits.

use super::*;

/// What Claude Code and a workload of the API's send alike.
const TOKEN: (&str, &str) = ("authorization", "Bearer sk-ant-oat01-secret");

fn answered(response_headers: &[(&'static str, &'static str)]) -> Billing {
    let response_headers = response_headers.to_vec();
    let case = Case { request_headers: vec![TOKEN], response_headers, ..anthropic_stream() };
    case.row().billing
}

#[test]
fn a_token_of_a_workload_is_told_by_the_limits_of_the_api() {
    let plain = ("anthropic-ratelimit-input-tokens-limit", "400000");
    let plan = ("anthropic-ratelimit-unified-status", "allowed");
    assert_eq!(answered(&[plain]), Billing::Metered);
    assert_eq!(answered(&[plain, plan]), Billing::Subscription);
    assert_eq!(answered(&[plan]), Billing::Subscription);
    // An error may come without any.
    assert_eq!(answered(&[("request-id", "req_1")]), Billing::Subscription);
    // Where the host says it, they are those of whom the host asks.
    let copilot = Case {
        host: "api.individual.githubcopilot.com",
        response_headers: vec![plain],
        ..anthropic_stream()
    };
    assert_eq!(copilot.row().billing, Billing::Subscription);
}

#[test]
fn what_the_plan_rejects_and_extra_usage_allows_is_paid() {
    for (status, beside, billing) in [
        ("rejected", "allowed", Billing::Metered),
        ("rejected", "allowed_warning", Billing::Metered),
        ("rejected", "rejected", Billing::Subscription),
        ("rejected", "", Billing::Subscription),
        ("allowed_warning", "allowed", Billing::Subscription),
        ("allowed", "allowed", Billing::Subscription),
    ] {
        for in_use in [&[][..], &[("anthropic-ratelimit-unified-overage-in-use", "false")]] {
            let told = [
                ("anthropic-ratelimit-unified-status", status),
                ("anthropic-ratelimit-unified-overage-status", beside),
            ];
            assert_eq!(answered(&[&told, in_use].concat()), billing, "{status}, {beside}");
        }
    }
}

#[test]
fn a_key_of_minimaxs_plan_is_one() {
    let billing = |host, name, key| {
        let request_headers = vec![(name, key)];
        let case =
            Case { host, target: "/anthropic/v1/messages", request_headers, ..anthropic_stream() };
        case.row().billing
    };
    let minimax = "api.minimax.io";
    for (host, name, key, expected) in [
        (minimax, "authorization", "Bearer sk-cp-secret", Billing::Subscription),
        (minimax, "x-api-key", "sk-cp-secret", Billing::Subscription),
        (minimax, "authorization", "Bearer sk-api-secret", Billing::Metered),
        (minimax, "x-api-key", "sk-api-secret", Billing::Metered),
        ("llm.corp.example", "x-api-key", "sk-cp-secret", Billing::Metered),
    ] {
        assert_eq!(billing(host, name, key), expected, "{host} {name} {key}");
    }
}

//! How people and their tools write secrets down: none of these is left, plain or within JSON.

use serde_json::json;

use super::redact;

/// Texts with `@` for a secret, and secrets.
const FORMS: &[(&str, &[&str])] = &[
    ("os.environ[\"API_KEY\"]=\"@\"", WORDS),
    ("os.environ['DB_PASSWORD'] = '@'", WORDS),
    ("os.environ[\"KEY\"]=\"@\"", WORDS),
    ("os.environ.setdefault(\"API_KEY\", \"@\")", WORDS),
    ("os.putenv('SECRET', '@')", WORDS),
    ("ENV['AUTH_TOKEN'] ||= '@'", WORDS),
    ("$env:API_KEY = \"@\"", WORDS),
    ("process.env.API_KEY = `@`;", WORDS),
    ("config.set('api_key', \"@\")", WORDS),
    ("headers={'X-Api-Key': '@'}", WORDS),
    ("{\"X-Auth-Token\", \"@\"}", WORDS),
    ("export KEY=@", WORDS),
    ("export API_KEY=@\n", WORDS),
    ("export DB_PASS='@'", WORDS),
    ("set -x API_KEY @", WORDS),
    ("set -gx API_TOKEN '@'", WORDS),
    ("setenv API_KEY @", WORDS),
    ("ENV API_KEY @", WORDS),
    ("docker run -e API_KEY=@ image", WORDS),
    ("docker login -u me -p @ registry.example.com", WORDS),
    ("docker login --username me -p '@'", WORDS),
    ("docker login -u me -p=@ registry.example.com", WORDS),
    ("docker login --password=@ -u me", WORDS),
    ("podman login -p @ quay.io", WORDS),
    ("echo @ | docker login -u me --password-stdin", WORDS),
    ("echo \"@\" | gh auth login --with-token", WORDS),
    ("oc login -u me -p @", WORDS),
    ("curl -u user:@ https://example.com", WORDS),
    ("curl -u 'user:@' https://example.com", WORDS),
    ("curl -uuser:@ https://example.com", WORDS),
    ("curl --user \"user:@\" https://example.com", WORDS),
    ("curl -U me:@ -x proxy https://example.com", WORDS),
    ("curl --proxy-user me:@ https://example.com", WORDS),
    ("wget --http-password=@ https://example.com", WORDS),
    ("psql 'host=db user=me password=@'", WORDS),
    ("PGPASSWORD=@ psql", WORDS),
    ("redis-cli -a @ ping", WORDS),
    ("openssl enc -k @ -in a", WORDS),
    ("openssl rsa -passin pass:@ -in a", WORDS),
    ("ansible-vault --vault-password @", WORDS),
    ("Authorization: Basic @", BASE64),
    ("Proxy-Authorization: Basic @", BASE64),
    ("-H \"Authorization: Basic @\"", BASE64),
    ("{\"Authorization\": \"Basic @\"}", BASE64),
    ("('Authorization', 'Basic @')", BASE64),
    ("Authorization: Token @", WORDS),
    ("aws_access_key_id = @", &["AKIAIOSFODNN7EXAMPLE", "ASIAQ3EGRTV7PXZ2M4KD"]),
    ("key @.", &["AKIAIOSFODNN7EXAMPLE", "ASIAQ3EGRTV7PXZ2M4KD"]),
    ("AKIAIOSFODNN7EXAMPLE @", AWS),
    ("AKIAIOSFODNN7EXAMPLE,@", AWS),
    ("(\"AKIAIOSFODNN7EXAMPLE\", \"@\")", AWS),
    ("AKIAIOSFODNN7EXAMPLE\n@\n", AWS),
    ("SecretAccessKey\": \"@", AWS),
    ("aws configure set aws_secret_access_key @", AWS),
    (
        "use @ here",
        &[
            "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
            "glpat-xYz_1-abcDEFghiJKLm",
            "xoxb-263594206564-2343594206574-FGqddMF8t08v8N7Oq4i57vs1",
            "xoxp-263594206564-2343594206574-FGqddMF8t08v8N7Oq4i57vs1",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
            "pcsk_2aXyZ8_Q1w2E3r4T5y6U7i8O9p0",
            "tvly-dev-Q1w2E3r4T5y6U7i8O9p0",
            "lsv2_pt_0123456789abcdef0123456789abcdef_0123456789",
        ],
    ),
    ("postgres://user:@@host/db", WORDS),
    ("DATABASE_URL=postgresql+psycopg://user:@@host:5432/db?sslmode=require", WORDS),
    ("redis://:@@cache:6379/0", WORDS),
    (
        "https://@@github.com/me/it.git",
        &["ghp_16C7e42F292c6912E7710c838347Ae178B4a", "0123456789abcdef0123456789abcdef01234567"],
    ),
    ("jdbc:oracle:thin:scott/@@//db:1521/x", WORDS),
    ("Server=db;Uid=me;Pwd=@;", WORDS),
    ("-----BEGIN RSA PRIVATE KEY-----\n@\n-----END RSA PRIVATE KEY-----", PEM),
    ("-----BEGIN PRIVATE KEY-----\\n@\\n-----END PRIVATE KEY-----\\n", PEM),
    ("-----BEGIN OPENSSH PRIVATE KEY-----\r\n@\r\n", PEM),
    ("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n@\n-----END PGP PRIVATE KEY BLOCK-----", PEM),
    ("<add key=\"ApiKey\" value=\"@\"/>", WORDS),
    ("<string name=\"api_key\">@</string>", WORDS),
    ("<apiKey>@</apiKey>", WORDS),
    ("- name: API_KEY\n  value: @\n", WORDS),
    ("{\"name\": \"API_KEY\", \"value\": \"@\"}", WORDS),
    ("//registry.npmjs.org/:_authToken=@", WORDS),
    (":password => \"@\"", WORDS),
    ("password is @", &["hunter2-Hunter2", "correct-Horse-7"]),
    ("my API key: @", WORDS),
];

const WORDS: &[&str] = &["hunter2Hunter2", "Tr0ub4dor-and-3", "a8f5f167f44f4964e6c998dee827110c"];
const BASE64: &[&str] =
    &["YWxhZGRpbjpvcGVuc2VzYW1l", "dXNlcjpodW50ZXIyaHVudGVy", "bWU6aHVudGVyMg=="];
const AWS: &[&str] =
    &["wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "abcdefghij+klmnopqrstu/vwxyz0123456789AB"];
const PEM: &[&str] = &[
    "MIIEpAIBAAKCAQEA7bq0Y1m3c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0",
    "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU=",
];

#[test]
fn no_form_is_left() {
    let mut left = Vec::new();
    for (form, secrets) in FORMS {
        for secret in *secrets {
            let plain = form.replacen('@', secret, 1);
            let inner = json!({"content": plain}).to_string();
            let texts = [
                format!("First.\n{plain}\nand so on"),
                json!({"messages": [{"role": "user", "content": format!("see\n{plain}\nok")}]})
                    .to_string(),
                json!({"arguments": inner}).to_string(),
            ];
            for (n, text) in texts.iter().enumerate() {
                let redacted = redact(text, text.len()).text;
                if redacted.contains(&secret[2..])
                    || redacted.contains(&secret.replace('/', "\\/")[2..])
                {
                    left.push(format!("{n}: {form:?} {redacted}"));
                }
            }
        }
    }
    assert!(left.is_empty(), "{} are left:\n{}", left.len(), left.join("\n"));
}

//! Versions of TLS.

use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};

use super::*;

#[tokio::test]
async fn an_older_tls_than_the_client_takes_is_for_it_to_refuse() {
    let origin = Origin::new().tls12().start(|_| async { Vec::new() });
    let mut world = World::new(&origin).await;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let newest = kit::hello(config, "api.example.com", &[]);
    let Look::Whole(hello) = look(&newest) else { panic!("no hello") };
    assert!(hello.tls13_only);
    let mut refused = world.offer_bytes(&newest).await;
    assert_eq!(refused.answer(&mut world).await, Answer::Decline(Decline::UpstreamTls));
    assert_eq!(refused.unread().await, newest);
    // That is nothing to a client that takes both.
    let mut both = world.offer("api.example.com", &[]).await;
    assert_eq!(both.answer(&mut world).await, Answer::Commit);
}

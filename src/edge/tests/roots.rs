//! Whom the edge believes, when it speaks TLS for a client.

use super::secure::Roots;
use super::*;
use crate::descriptors::testing::{alone, none_left};
use crate::threads::testing as threads;

/// The edge makes none.
const ROOT: &str = "\
    -----BEGIN CERTIFICATE-----\n\
    MIIBfzCCASWgAwIBAgIUTW9jO5y9tqesP5s2+zxfCk8bL+cwCgYIKoZIzj0EAwIw\n\
    FDESMBAGA1UEAwwJU29tZSBSb290MCAXDTI2MTEzMDEwMjgyNloYDzIxMjYxMTA2\n\
    MTAyODI2WjAUMRIwEAYDVQQDDAlTb21lIFJvb3QwWTATBgcqhkjOPQIBBggqhkjO\n\
    PQMBBwNCAATfrv2nH0rqUVzJwy74ikt6Gw+/YsMXmmKI7hdxWfzfuZkD996gfaRL\n\
    KEfIl0KU/EWrqvd+LsQmXU4yUiC79t9bo1MwUTAdBgNVHQ4EFgQUAUUZn15dVyzC\n\
    n/0i0amjWPGXRgEwHwYDVR0jBBgwFoAUAUUZn15dVyzCn/0i0amjWPGXRgEwDwYD\n\
    VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEAjPCoVo0+bZG66MaOn7lH\n\
    5qMWs5402IB3V1vXG6sm1FoCIBy93z7eix+Wto+S+j7o4X8xvTcRiv4L6zNAREKv\n\
    mbGA\n\
    -----END CERTIFICATE-----\n";

#[tokio::test]
async fn a_moment_without_descriptors_or_threads_is_over_with_it() {
    if !alone("edge::tests::roots::a_moment_without_descriptors_or_threads_is_over_with_it") {
        return;
    }
    in_world(|world| async move {
        let shared = &world.edge.shared;
        let file = world.home.path().join("root.pem");
        std::fs::write(&file, ROOT).unwrap();
        let mut config = Config::clone(&shared.config.load());
        config.upstream.extra_ca_file = Some(file);
        shared.config.store(Arc::new(config));

        let none = none_left();
        let (trust, read) = shared.secure.trust(shared).await;
        assert!(trust.problem().is_some() && read == Roots::New);
        drop(none);
        // What was missing was not kept.
        let none = threads::none_left();
        let (trust, read) = shared.secure.trust(shared).await;
        assert_eq!((trust.problem(), read), (None, Roots::New));
        drop(none);
        assert_eq!(shared.secure.trust(shared).await.1, Roots::Kept);
    })
    .await;
}

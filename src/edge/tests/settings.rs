//! How the edge takes over what somebody writes into its settings.

use super::*;
use crate::config::Stamp;
use crate::edge::settings::{follow, reload, usable};

impl World {
    fn api_port(&self) -> u16 {
        self.edge.shared.config.load().daemon.api_port
    }

    fn write(&self, text: &str) -> Option<Stamp> {
        std::fs::write(self.home.config_file(), text).unwrap();
        Stamp::of(&self.home.config_file())
    }

    async fn follow(&self, now: Option<Stamp>) {
        follow(Rc::clone(&self.edge.shared), now).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_configuration_leaves_the_last_good_one() {
    in_world(|world| async move {
        let before = world.api_port();
        let refused = world.write("[daemon]\napi_port = 1\nnonsense = 2\n").unwrap();
        reload(&world.edge.shared);
        assert_eq!(world.api_port(), before);
        let status = world.status().await;
        assert_eq!(status["config_refused"], refused.to_string());
        let taken = world.write("[daemon]\napi_port = 4321\n").unwrap();
        reload(&world.edge.shared);
        assert_eq!(world.api_port(), 4321);
        let status = world.status().await;
        assert_eq!(status["config"], taken.to_string());
        assert_eq!(status["config_refused"], serde_json::Value::Null);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_edited_file_is_taken_over_when_it_is_whole() {
    in_world(|world| async move {
        let before = world.api_port();
        world.follow(None).await;
        assert_eq!(world.api_port(), before, "a file that is gone may be back in a moment");
        // Seen in the middle of its being written.
        let seen = world.write("");
        tokio::join!(world.follow(seen), async {
            world.write("[daemon]\napi_port = 4321\n");
        });
        assert_eq!(world.api_port(), before);
        let now = Stamp::of(&world.home.config_file());
        world.follow(now.clone()).await;
        assert_eq!(world.api_port(), 4321);
        // Read once, whatever came of it.
        let config = world.edge.shared.config.load_full();
        world.follow(now).await;
        assert!(Arc::ptr_eq(&config, &world.edge.shared.config.load_full()));
        let wrong = world.write("[daemon]\napi_port = x\n");
        world.follow(wrong.clone()).await;
        assert_eq!((world.api_port(), world.edge.shared.settings.look().refused), (4321, wrong));
    })
    .await;
}

/// At the looks that it takes anyway: without a lock that could be had at its start, and with defaults.
#[tokio::test(start_paused = true)]
async fn an_edge_that_began_without_its_home_has_lock_door_and_settings_when_it_is_there() {
    in_world(|world| async move {
        let away = world.home.path().with_extension("away");
        world.write("[daemon]\napi_port = 4321\n");
        std::fs::rename(world.home.path(), &away).unwrap();
        // Nothing can be made in its place.
        std::fs::write(world.home.path(), "").unwrap();
        let lock = PidLock::untaken(world.home.pid_file("edge"));
        let listener = Rc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let door = world.edge.open_door(&world.home, &listener, Arc::new(lock));
        sleep(Duration::from_secs(60)).await;
        assert_ne!(world.api_port(), 4321);
        std::fs::remove_file(world.home.path()).unwrap();
        std::fs::rename(&away, world.home.path()).unwrap();
        while world.api_port() != 4321 || !world.home.edge_socket().exists() {
            sleep(MS).await;
        }
        let holder = PidLock::holder(&world.home.pid_file("edge")).unwrap();
        assert_eq!(holder, Some(std::process::id()));
        door.abort();
    })
    .await;
}

#[test]
fn an_upstream_proxy_that_is_ourselves_is_not_used() {
    let log = Logger::root(slog::Discard, slog::o!());
    let proxies_of = |url: &str| {
        let flags = [format!("upstream.proxy={url}")];
        let config = config::load_from(None, |_| None, &flags).config;
        let upstream = usable(config, 8081, &log).upstream;
        [upstream.proxy.is_some(), upstream.http_proxy.is_some()]
    };
    // The configuration refuses the port that it names; the edge may serve another.
    assert_eq!(proxies_of("http://localhost:8081"), [false; 2]);
    assert_eq!(proxies_of("http://proxy.example:8081"), [true; 2]);
    assert_eq!(proxies_of("http://localhost:3128"), [true; 2]);
}

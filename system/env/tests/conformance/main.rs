//! One suite, two worlds: what code above `env` may rely on holds on real sockets and files and in the simulation.
//!
//! Each case is one async function. It runs once on tokio in a temporary directory, and on several seeds in the
//! simulation, half of them on a link that chops reads and writes.

extern crate streamproof_env as env;

mod disk;
mod net;
mod task;
mod time;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where a case may put files; sockets go on the loopback address.
#[derive(Clone)]
pub struct Place {
    pub dir: PathBuf,
}

impl Place {
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub fn in_real<F: Future<Output = ()>>(case: impl FnOnce(Place) -> F) {
    let dir = tempfile::tempdir().unwrap();
    let place = Place { dir: dir.path().to_owned() };
    env::node::run_real(env::time::timeout(Duration::from_secs(60), case(place))).unwrap().expect("within a minute");
}

pub fn in_sim<F: Future<Output = ()> + 'static>(case: impl Fn(Place) -> F + Clone + Send + 'static) {
    for seed in 0..8 {
        let case = case.clone();
        let chop_ppm = if seed % 2 == 0 { 0 } else { 300_000 };
        let loopback = world::LinkLaw { chop_ppm, ..world::LinkLaw::LOOPBACK };
        let config = world::Config { loopback, ..world::Config::new(seed, seed) };
        let run = world::on_seed(config, |world| async move {
            let node = world.add_node("node", "case", [10, 0, 0, 1].into(), move || {
                let case = case.clone();
                async move {
                    env::disk::create_dir_all("/case").await.unwrap();
                    case(Place { dir: "/case".into() }).await;
                }
            });
            world.wait(node, |s| s == world::Status::Down).await;
        });
        if let Err(failed) = run {
            panic!("seed {seed}: {failed}");
        }
    }
}

#[macro_export]
macro_rules! both {
    ($($case:ident),* $(,)?) => { $(
        mod $case {
            #[test]
            fn real() {
                $crate::in_real(super::cases::$case);
            }

            #[test]
            fn simulated() {
                $crate::in_sim(super::cases::$case);
            }
        }
    )* };
}

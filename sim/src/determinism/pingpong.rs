//! The least system that touches every source of nondeterminism: two servers that log each ball to disk and count it,
//! players that send balls, crashes, a cut and a power loss in between. `streamproof determinism` proves the world on it
//! before it accuses a scenario.

use std::cell::Cell;
use std::hash::Hasher;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use env::disk::{File, Open};
use env::io::{AsyncReadExt, AsyncWriteExt};
use env::net::{TcpListener, TcpStream};
use world::{Config, LinkLaw, PowerLaw, World, on_seed};
use xxhash_rust::xxh3::Xxh3;

use super::{Hashes, Sample};
use crate::runner::{Recorder, RunOptions};

const SERVERS: [&str; 2] = ["10.1.0.1:7", "10.1.0.2:7"];
const PLAYERS: u8 = 3;
const BALLS: u32 = 60;

#[derive(Debug, Hash)]
enum Probe {
    Served { player: u8, ball: u32, total: u64 },
    Returned { ball: u32, round_trip_ns: u64 },
    Lost { ball: u32 },
}

/// Plays one game.
pub fn play(seed: u64, options: &RunOptions) -> Sample {
    let config = Config {
        law: LinkLaw { loss_ppm: 20_000, chop_ppm: 50_000, ..LinkLaw::LAN },
        keep_trace: options.keep_trace,
        ..Config::new(seed::draw(seed, "world", &[]).u64(), options.schedule.unwrap_or(seed))
    };
    let full = options.recorder == Recorder::Full;
    let played = on_seed(config, |world| async move {
        let hasher = Rc::new(Cell::new(Some(Xxh3::new())));
        if full {
            let heard = Rc::clone(&hasher);
            env::probe::listen(Some(Box::new(move |probe| {
                let (Some(at), Some(mut h)) = (world::port::current(), heard.take()) else { return };
                h.write_u64(at.now.as_nanos());
                h.write_u64(u64::from(at.node) << 32 | u64::from(at.incarnation));
                probe.hash_into(&mut h);
                heard.set(Some(h));
            })));
        }
        game(&world, seed).await;
        env::probe::listen(None);
        hasher.take().map_or(0, |h| h.digest())
    });
    match played {
        Ok(run) => Sample {
            hashes: Hashes { world: run.trace_hash, probe: full.then_some(run.value) },
            trace: run.trace.iter().map(ToString::to_string).collect(),
        },
        Err(failed) => Sample {
            hashes: Hashes { world: failed.trace_hash, probe: None },
            trace: failed.trace.iter().map(ToString::to_string).collect(),
        },
    }
}

async fn game(world: &World, seed: u64) {
    let mut servers = Vec::new();
    for address in SERVERS {
        let address: SocketAddr = address.parse().expect("a literal address");
        servers.push(world.add_node(&format!("server-{}", address.ip()), "server", address.ip(), move || async move {
            if let Err(e) = serve(address).await {
                tracing::warn!("server stopped: {e}");
            }
        }));
    }
    let done = Rc::new(Cell::new(0));
    for player in 0..PLAYERS {
        let done = Rc::clone(&done);
        let ip = [10, 1, 1, player + 1].into();
        world.add_node(&format!("player-{player}"), "player", ip, move || {
            let done = Rc::clone(&done);
            async move {
                for ball in 0..BALLS {
                    hit(player, ball).await;
                }
                done.set(done.get() + 1);
            }
        });
    }
    let mut rng = seed::stream(seed, "umpire", &[]);
    while done.get() < PLAYERS {
        world.sleep(Duration::from_millis(rng.range(20, 120))).await;
        let server = *rng.choose(&servers);
        match rng.range(0, 3) {
            0 => _ = world.crash(server),
            1 => _ = world.power_loss(server, PowerLaw::Any),
            2 => {
                let cut = world.net().cut(&[server], &world.nodes());
                world.sleep(Duration::from_millis(rng.range(5, 80))).await;
                world.heal(cut);
            }
            _ => _ = world.net().reset(&[server], &world.nodes()),
        }
        world.sleep(Duration::from_millis(rng.range(5, 50))).await;
        world.restart(server);
    }
}

async fn serve(address: SocketAddr) -> env::io::Result<()> {
    let path = Path::new("/balls");
    let file = Rc::new(File::open(path, Open::OrCreate).await?);
    let total = Rc::new(Cell::new(file.len().await?));
    let listener = TcpListener::bind(address).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        let (file, total) = (Rc::clone(&file), Rc::clone(&total));
        env::task::spawn(async move {
            let mut ball = [0; 5];
            while stream.read_exact(&mut ball).await.is_ok() {
                let at = total.get();
                total.set(at + 5);
                env::probe::probe(|| Probe::Served { player: ball[0], ball: number(&ball), total: at });
                let written = file.write_at(at, Bytes::copy_from_slice(&ball)).await;
                if written.is_err() || file.sync().await.is_err() || stream.write_all(&ball).await.is_err() {
                    return;
                }
                let _ = stream.flush().await;
            }
        });
    }
}

async fn hit(player: u8, ball: u32) {
    let mut rng = env::rng::stream("aim");
    let server: SocketAddr = rng.choose(&SERVERS).parse().expect("a literal address");
    let mut message = vec![player];
    message.extend(ball.to_be_bytes());
    let began = env::clock::now();
    let round_trip = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(&message).await?;
        stream.flush().await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        env::io::Result::Ok(())
    };
    match env::time::timeout(Duration::from_millis(40), round_trip).await {
        Ok(Ok(())) => env::probe::probe(|| Probe::Returned {
            ball,
            round_trip_ns: env::clock::now().saturating_since(began).as_nanos() as u64,
        }),
        _ => env::probe::probe(|| Probe::Lost { ball }),
    }
    tracing::debug!(ball, "played");
    env::time::sleep(Duration::from_millis(rng.range(1, 20))).await;
}

fn number(ball: &[u8; 5]) -> u32 {
    u32::from_be_bytes([ball[1], ball[2], ball[3], ball[4]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_plays_the_same_game() {
        let mut worlds = std::collections::BTreeSet::new();
        for seed in 0..30 {
            let hashes = crate::determinism::check_pingpong(seed).unwrap_or_else(|d| panic!("seed {seed}: {d}"));
            worlds.insert(hashes.world);
        }
        assert_eq!(worlds.len(), 30, "different seeds play different games");
    }

    #[test]
    fn another_schedule_is_another_game_in_the_same_world() {
        let options = RunOptions { schedule: Some(77), ..RunOptions::default() };
        assert_ne!(play(3, &options).hashes.world, play(3, &RunOptions::default()).hashes.world);
    }

    /// The engine finds a difference and names the first event.
    #[test]
    fn a_difference_is_found() {
        let calls = std::sync::atomic::AtomicU64::new(0);
        let leak = |options: &RunOptions| {
            let n = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            play(if n.is_multiple_of(2) { 1 } else { 2 }, options)
        };
        let divergence = crate::determinism::check_with(&leak).unwrap_err();
        let (_, a, b) = divergence.first.clone().expect("the traces differ");
        assert_ne!(a, b);
    }
}

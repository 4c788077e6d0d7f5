//! An echo server, a client, and addresses.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use env::io::{AsyncReadExt, AsyncWriteExt};
use env::net::{TcpListener, TcpStream};
use world::{Config, NodeId, World};

pub const PORT: u16 = 9092;

pub fn ip(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

pub fn addr(n: u8) -> SocketAddr {
    SocketAddr::new(ip(n), PORT)
}

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn config(seed: u64) -> Config {
    Config::new(seed, seed)
}

/// Echoes on 10.0.0.`n`:9092.
pub fn add_echo(world: &World, name: &str, n: u8) -> NodeId {
    world.add_node(name, "echo", ip(n), move || async move {
        let listener = TcpListener::bind(addr(n)).await.unwrap();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            env::task::spawn(async move {
                let mut buf = [0; 4096];
                while let Ok(n) = stream.read(&mut buf).await {
                    if n == 0 || stream.write_all(&buf[..n]).await.is_err() {
                        break;
                    }
                }
            });
        }
    })
}

/// Runs `main` on a node and gives its result to the world's code.
pub struct Client<T> {
    pub id: NodeId,
    out: Rc<RefCell<Option<T>>>,
}

pub fn add_client<T: 'static, Fut>(world: &World, name: &str, n: u8, main: impl Fn() -> Fut + 'static) -> Client<T>
where
    Fut: Future<Output = T> + 'static,
{
    let out = Rc::new(RefCell::new(None));
    let slot = Rc::clone(&out);
    let id = world.add_node(name, "client", ip(n), move || {
        let (slot, future) = (Rc::clone(&slot), main());
        async move {
            let value = future.await;
            *slot.borrow_mut() = Some(value);
        }
    });
    Client { id, out }
}

impl<T> Client<T> {
    pub async fn result(&self, world: &World) -> T {
        world.wait(self.id, |s| s == world::Status::Down).await;
        self.out.borrow_mut().take().expect("the client finished")
    }
}

/// Sends `n` numbered messages of 8 bytes and reads each echo.
pub async fn ping(to: SocketAddr, n: u64) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    for i in 0..n {
        stream.write_all(&i.to_be_bytes()).await?;
        let mut buf = [0; 8];
        stream.read_exact(&mut buf).await?;
        assert_eq!(u64::from_be_bytes(buf), i);
    }
    Ok(())
}

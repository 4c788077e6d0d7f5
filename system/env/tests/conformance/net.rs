//! Sockets.

crate::both!(
    echo,
    half_close,
    refused,
    address_in_use,
    the_world_chooses_a_port,
    back_pressure,
    small_reads_lose_nothing,
    drop_ends_the_peer_after_its_data,
    drop_with_unread_data_resets,
    a_write_to_a_closed_peer_fails_at_last,
    a_dropped_listener_refuses,
    addresses_agree,
    a_dropped_connect_is_harmless,
    halves_work_apart,
);

mod cases {
    use std::io::ErrorKind;

    use env::io::{AsyncReadExt, AsyncWriteExt};
    use env::net::{TcpListener, TcpStream};

    use crate::{Place, local, ms};

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(local(0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let client = env::task::spawn(TcpStream::connect(addr));
        let (server, _) = listener.accept().await.unwrap();
        (client.await.unwrap().unwrap(), server)
    }

    pub async fn echo(_: Place) {
        let (mut a, mut b) = pair().await;
        for n in [1usize, 100, 40_000] {
            let sent: Vec<u8> = (0..n).map(|i| i as u8).collect();
            let mut got = vec![0; n];
            a.write_all(&sent).await.unwrap();
            b.read_exact(&mut got).await.unwrap();
            b.write_all(&got).await.unwrap();
            let mut back = vec![0; n];
            a.read_exact(&mut back).await.unwrap();
            assert_eq!(sent, back);
        }
    }

    pub async fn half_close(_: Place) {
        let (mut a, mut b) = pair().await;
        a.write_all(b"question").await.unwrap();
        a.shutdown().await.unwrap();
        let mut question = Vec::new();
        b.read_to_end(&mut question).await.unwrap();
        assert_eq!(question, b"question");
        assert_eq!(a.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        b.write_all(b"answer").await.unwrap();
        drop(b);
        let mut answer = Vec::new();
        a.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
        assert_eq!(a.read(&mut [0; 8]).await.unwrap(), 0, "the end stays the end");
    }

    pub async fn refused(_: Place) {
        let listener = TcpListener::bind(local(0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(TcpStream::connect(addr).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }

    pub async fn address_in_use(_: Place) {
        let listener = TcpListener::bind(local(0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        assert_eq!(TcpListener::bind(addr).await.unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(listener);
        TcpListener::bind(addr).await.unwrap();
    }

    pub async fn the_world_chooses_a_port(_: Place) {
        let a = TcpListener::bind(local(0)).await.unwrap();
        let b = TcpListener::bind(local(0)).await.unwrap();
        assert_ne!(a.local_addr().unwrap().port(), 0);
        assert_ne!(a.local_addr().unwrap(), b.local_addr().unwrap());
    }

    pub async fn back_pressure(_: Place) {
        const ALL: usize = 24 << 20;
        let (mut a, mut b) = pair().await;
        let sent = std::rc::Rc::new(std::cell::Cell::new(0));
        let count = sent.clone();
        let writer = env::task::spawn(async move {
            let chunk: Vec<u8> = (0..100_000).map(|i| (i % 251) as u8).collect();
            while count.get() < ALL {
                let n = chunk.len().min(ALL - count.get());
                a.write_all(&chunk[..n]).await.unwrap();
                count.set(count.get() + n);
            }
        });
        env::time::sleep(ms(300)).await;
        let stuck = sent.get();
        assert!(stuck < ALL, "a peer that does not read stops the writer");
        env::time::sleep(ms(100)).await;
        assert_eq!(sent.get(), stuck, "it stays stopped");
        let mut at = 0;
        let mut buf = vec![0; 1 << 20];
        loop {
            let n = b.read(&mut buf).await.unwrap();
            if n == 0 {
                break;
            }
            for &byte in &buf[..n] {
                assert_eq!(byte, (at % 100_000 % 251) as u8, "at {at}");
                at += 1;
            }
        }
        assert_eq!(at, ALL);
        writer.await.unwrap();
    }

    pub async fn small_reads_lose_nothing(_: Place) {
        let (mut a, mut b) = pair().await;
        let sent: Vec<u8> = (0..10_000u32).map(|i| (i % 253) as u8).collect();
        let copy = sent.clone();
        env::task::spawn(async move {
            for piece in copy.chunks(777) {
                a.write_all(piece).await.unwrap();
                env::task::yield_now().await;
            }
        });
        let mut got = Vec::new();
        let mut buf = [0; 13];
        loop {
            let n = b.read(&mut buf).await.unwrap();
            if n == 0 {
                break;
            }
            got.extend_from_slice(&buf[..n]);
        }
        assert_eq!(got, sent);
    }

    pub async fn drop_ends_the_peer_after_its_data(_: Place) {
        let (mut a, mut b) = pair().await;
        a.write_all(&[7; 30_000]).await.unwrap();
        drop(a);
        let mut got = Vec::new();
        b.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, [7; 30_000]);
    }

    pub async fn drop_with_unread_data_resets(_: Place) {
        let (mut a, mut b) = pair().await;
        a.write_all(b"never read").await.unwrap();
        env::time::sleep(ms(50)).await;
        assert_eq!(b.read(&mut [0; 1]).await.unwrap(), 1);
        drop(b);
        assert_eq!(a.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }

    pub async fn a_write_to_a_closed_peer_fails_at_last(_: Place) {
        let (mut a, b) = pair().await;
        drop(b);
        let mut failed = None;
        for _ in 0..50 {
            if let Err(e) = a.write_all(b"hello?").await {
                failed = Some(e.kind());
                break;
            }
            env::time::sleep(ms(10)).await;
        }
        assert!(matches!(failed, Some(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)), "{failed:?}");
    }

    pub async fn a_dropped_listener_refuses(_: Place) {
        let listener = TcpListener::bind(local(0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (client, _server) = {
            let client = env::task::spawn(TcpStream::connect(addr));
            let (server, _) = listener.accept().await.unwrap();
            (client.await.unwrap().unwrap(), server)
        };
        drop(listener);
        assert_eq!(TcpStream::connect(addr).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(client.peer_addr().unwrap(), addr, "what was accepted lives on");
    }

    pub async fn addresses_agree(_: Place) {
        let listener = TcpListener::bind(local(0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let client = env::task::spawn(TcpStream::connect(addr));
        let (server, peer) = listener.accept().await.unwrap();
        let client = client.await.unwrap().unwrap();
        assert_eq!(client.peer_addr().unwrap(), addr);
        assert_eq!(client.local_addr().unwrap(), peer);
        assert_eq!(server.peer_addr().unwrap(), peer);
        assert_eq!(server.local_addr().unwrap(), addr);
    }

    pub async fn a_dropped_connect_is_harmless(_: Place) {
        let listener = TcpListener::bind(local(0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        for _ in 0..5 {
            let abandoned = env::task::spawn(TcpStream::connect(addr));
            env::task::yield_now().await;
            abandoned.abort();
        }
        let client = env::task::spawn(async move {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            stream.write_all(b"real").await.unwrap();
            let mut end = Vec::new();
            stream.read_to_end(&mut end).await.unwrap();
        });
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buf = [0; 4];
            if stream.read_exact(&mut buf).await.is_ok() {
                assert_eq!(&buf, b"real");
                break;
            }
        }
        client.await.unwrap();
    }

    pub async fn halves_work_apart(_: Place) {
        let (a, b) = pair().await;
        let (mut read, mut write) = a.into_split();
        let (mut peer_read, mut peer_write) = b.into_split();
        let pump = env::task::spawn(async move {
            let mut buf = [0; 1000];
            loop {
                let n = peer_read.read(&mut buf).await.unwrap();
                if n == 0 {
                    break;
                }
                peer_write.write_all(&buf[..n]).await.unwrap();
            }
            peer_write.shutdown().await.unwrap();
        });
        let sender = env::task::spawn(async move {
            for n in 0..200u8 {
                write.write_all(&[n; 500]).await.unwrap();
            }
            write.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        read.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), 100_000);
        assert!(got.chunks(500).zip(0u8..).all(|(chunk, n)| chunk.iter().all(|&b| b == n)));
        sender.await.unwrap();
        pump.await.unwrap();
    }
}

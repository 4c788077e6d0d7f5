//! A broker on loopback, until it is killed: `serve PORT DIR`.

use std::net::{Ipv4Addr, SocketAddr};

fn main() -> std::io::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let mut args = std::env::args().skip(1);
    let port: u16 = args.next().and_then(|p| p.parse().ok()).unwrap_or(9092);
    let data_dir = args.next().unwrap_or_else(|| "data".to_owned()).into();
    env::node::run_real(async move {
        let config = streamproof_broker::BrokerConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            data_dir,
            auto_create_topics: true,
            ..Default::default()
        };
        match streamproof_broker::Broker::start(config).await {
            Err(error) => println!("{error}"),
            Ok(broker) => {
                println!("listening on {}", broker.local_addr());
                println!("{}", broker.failed().await);
            }
        }
    })
}

//! A peer dials another, sends, and looks at what comes back: in time, or with a typed error.

use std::time::Duration;

use endpoint_core::{ConnectError, Connection, Endpoint, LinkError, Target};
use endpoint_tests::chance::Chance;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    model::HEAD,
    plan::address,
    world::{PORT, Weakness, World, key, protocol},
};

/// Time that a dial may take: two handshakes and their first streams, as the limits below have it.
const DIAL: Duration = Duration::from_secs(20);
/// Time that a message may take, there and back.
pub const MESSAGE: Duration = Duration::from_secs(90);

impl World {
    /// `from` dials where `at` is, expects the key of `to`, and sends.
    pub async fn call(
        &self,
        number: usize,
        from: usize,
        to: usize,
        at: usize,
        streams: &[usize],
        pause: Duration,
    ) {
        let Some(endpoint) = self.peers[from].here().await else { return self.count("away").await };
        let connection = match self.dial(&endpoint, to, at).await {
            Ok(connection) => connection,
            Err(kind) => return self.count(kind).await,
        };
        let shown = connection.peer_key().fingerprint();
        if shown != Some(key(to)) && self.weakness != Weakness::Trusting {
            self.model.broken(format!("{from} dialled {to} and was given {shown:?}"));
        }
        let mut chance = Chance::of(&[self.seed, number as u64]);
        for (index, length) in streams.iter().enumerate() {
            if index > 0 {
                sleep(pause).await;
            }
            let mut message = self.now().to_le_bytes().to_vec();
            message.extend(key(to).hex().bytes().chain(key(from).hex().bytes()));
            message.extend(chance.bytes(*length));
            assert!(message.len() >= HEAD);
            let sent = timeout(MESSAGE, exchange(&connection, &message)).await;
            match sent {
                Err(_) => self.model.broken(format!("a message took more than {MESSAGE:?}")),
                Ok(Ok(back)) if back == message => self.count("ok").await,
                Ok(Ok(_)) => self.model.broken("what came back is not what was sent".to_owned()),
                Ok(Err(error)) => return self.count(kind_of_end(&error)).await,
            }
        }
    }

    /// Dials until there is an answer, at most three times.
    async fn dial(
        &self,
        endpoint: &Endpoint,
        to: usize,
        at: usize,
    ) -> Result<Connection, &'static str> {
        let mut last = "none";
        for _ in 0..3 {
            let began = Instant::now();
            let mut expected = key(to).hex();
            if self.weakness == Weakness::Trusting {
                let host = format!("{}:{PORT}", address(at)).parse().expect("a host");
                match endpoint.learn(&host).await {
                    Ok(learned) => expected = learned.hex(),
                    Err(_) => continue,
                }
            }
            let target: Target =
                format!("peer://{expected}@{}:{PORT}", address(at)).parse().expect("a target");
            let dialled = timeout(DIAL, endpoint.connect(&target, protocol(self.weakness))).await;
            self.net.tell(|| format!("dialled {to} for {:?}: {dialled:?}", began.elapsed()));
            match dialled {
                Err(_) => {
                    self.model.broken(format!("a dial took more than {DIAL:?}"));
                    return Err("late");
                }
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => {
                    let (kind, again) = kind_of_refusal(&error);
                    last = kind;
                    match again {
                        Some(wait) => sleep(wait).await,
                        None => break,
                    }
                }
            }
        }
        Err(last)
    }
}

async fn exchange(connection: &Connection, message: &[u8]) -> Result<Vec<u8>, LinkError> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(message).await?;
    send.finish().await?;
    recv.read_to_end(1 << 20).await
}

fn kind_of_end(error: &LinkError) -> &'static str {
    match error {
        LinkError::Closed(_) => "closed",
        LinkError::PeerRestarted => "restarted",
        LinkError::StreamReset(_) => "reset",
        LinkError::TimedOut => "silent",
        LinkError::Lost(_) => "lost",
        _ => "other end",
    }
}

/// What kind it is, and after how long another dial makes sense.
fn kind_of_refusal(error: &ConnectError) -> (&'static str, Option<Duration>) {
    let second = Some(Duration::from_secs(1));
    match error {
        ConnectError::NotAuthorized { .. } => ("not authorised", None),
        ConnectError::PeerChanged { .. } => ("another key", None),
        ConnectError::Overloaded { .. } => ("overloaded", second),
        ConnectError::RecentlyFailed { wait, .. } => ("failed lately", Some(*wait)),
        ConnectError::Timeout { .. } => ("no answer", second),
        ConnectError::Unreachable { .. } => ("unreachable", second),
        _ => ("other refusal", second),
    }
}

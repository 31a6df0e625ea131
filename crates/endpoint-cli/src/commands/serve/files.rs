//! How many connections do the open files allow?

use endpoint_core::config::Limits;

use crate::config::{Config, web::Content};

/// Files for everything but connections: listeners, key and trust files, the control socket.
const KEPT_BACK: usize = 128;
/// Files for the connections of one plain listener, which takes no more of them at one time.
const OF_A_PLAIN_LISTENER: usize = 256;

/// How many listeners there are whose connections take files of their own.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenFiles {
    /// Plain ones.
    pub(super) plain: usize,
}

/// What the open files leave room for.
#[derive(Debug)]
pub(super) struct Room {
    /// What was asked for, held to that.
    pub(super) limits: Limits,
    /// Requests that may have a file open.
    pub(super) files: usize,
    /// What is wrong, if it is less than was asked for, and what to do.
    pub(super) warning: Option<(String, String)>,
}

impl OpenFiles {
    /// Raises the limit on open files and holds the connections to what it allows: each over TCP takes one.
    pub(super) fn room(self, config: &Config) -> Room {
        let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(u64::MAX);
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let idle = upstreams(config).saturating_mul(IDLE_OF_AN_UPSTREAM);
        let plain = self.plain.saturating_mul(OF_A_PLAIN_LISTENER);
        // However few there are, connections get half of them.
        let kept = KEPT_BACK.saturating_add(plain.saturating_add(idle).min(files / 2));
        let each = files_of_a_connection(config);
        let Shares { connections: room, handshakes, waiting } =
            Shares::of(files, config.handshakes, config.waiting, kept, each);
        let limits = config.limits.clone().waiting_connections(waiting);
        if room >= config.connections {
            return Room { limits, files: room, warning: None };
        }
        let message = format!(
            "{files} open files do not suffice for {} connections: taking at most {room}",
            config.connections
        );
        let wanted = config
            .connections
            .saturating_mul(each)
            .saturating_add(config.handshakes)
            .saturating_add(config.waiting)
            .saturating_add(kept);
        let hint = format!("raise it: ulimit -n {wanted}, or LimitNOFILE={wanted} in the unit");
        let limits = limits.connections(room).handshakes_in_flight(handshakes);
        Room { limits, files: room, warning: Some((message, hint)) }
    }
}

/// Connections that lie idle between this program and each upstream.
const IDLE_OF_AN_UPSTREAM: usize = 64;

fn upstreams(config: &Config) -> usize {
    let of = |content: &Content| match content {
        Content::Proxy(upstreams) => upstreams.len(),
        _ => 0,
    };
    config.sites.iter().map(|site| of(&site.content)).sum()
}

/// One, and one more where requests take files: those that are sent, or connections to upstreams.
fn files_of_a_connection(config: &Config) -> usize {
    let takes = |content: &Content| matches!(content, Content::Root { .. } | Content::Proxy(_));
    if config.sites.iter().any(|site| takes(&site.content)) { 2 } else { 1 }
}

/// Who may hold files, and how many.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Shares {
    connections: usize,
    handshakes: usize,
    waiting: usize,
}

impl Shares {
    /// Of `files`, where each connection takes `each` and `kept` are kept back. Without files left over, the
    /// trust file could not be read when it changes, and then nobody is let in.
    fn of(files: usize, handshakes: usize, waiting: usize, kept: usize, each: usize) -> Self {
        let handshakes = handshakes.min(files / 4).max(1);
        let waiting = waiting.min(files / 8).max(1);
        let rest = files.saturating_sub(kept).saturating_sub(handshakes).saturating_sub(waiting);
        Self { connections: (rest / each.max(1)).max(1), handshakes, waiting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Site;

    #[test]
    fn leaves_files_for_trust_whatever_connections_and_handshakes_take() {
        for files in [64, 256, 1024, 4096, 65_536] {
            for (plain, each) in [(0, 1), (1, 1), (1, 2), (3, 2)] {
                let kept = KEPT_BACK + plain * OF_A_PLAIN_LISTENER;
                let shares = Shares::of(files, 512, 4096, kept, each);
                let Shares { connections, handshakes, waiting } = shares;
                assert!(connections >= 1 && handshakes >= 1 && waiting >= 1);
                if files > 2 * kept {
                    let held = connections * each + handshakes + waiting;
                    assert!(held + kept <= files, "{files} {plain}");
                }
            }
        }
        let connections = |kept, each| Shares::of(65_536, 512, 4096, kept, each).connections;
        assert_eq!(connections(KEPT_BACK, 1), 65_536 - 512 - 4096 - 128);
        assert_eq!(connections(384, 2), (65_536 - 512 - 4096 - 384) / 2);
    }

    #[test]
    fn counts_what_a_request_takes() {
        let with = |content| Config {
            sites: vec![Site { content, ..Site::default() }],
            ..Config::default()
        };
        let folder = Content::Root { folder: "/".into(), listing: false };
        assert_eq!(files_of_a_connection(&with(folder)), 2);
        assert_eq!(files_of_a_connection(&with(Content::Proxy(Vec::new()))), 2);
        assert_eq!(files_of_a_connection(&with(Content::Welcome)), 1);
    }
}

//! What is taken from a daemon, and what is said of one that answers otherwise?

use std::{path::PathBuf, time::Duration};

use rcgen::{CertificateParams, KeyPair};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
};

use super::*;

const NOW: &str = "2026-11-22T12:00:00Z";
const NAME: &str = "node.tail1.ts.net";

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// What the stand-in answers to a question for a certificate.
type Answers = Arc<dyn Fn() -> Option<Vec<u8>> + Send + Sync>;

/// A daemon that speaks the documented local API, as far as certificates go.
struct Daemon {
    folder: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Daemon {
    /// `certificate` is the whole HTTP answer; `None`: it keeps silent.
    fn start(
        status: &str,
        certificate: impl Fn() -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("tailscaled.sock")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (heard, status) = (Arc::clone(&asked), status.to_owned());
        let certificate: Answers = Arc::new(certificate);
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { break };
                    request.push(byte);
                }
                let request = String::from_utf8(request).unwrap();
                heard.lock().unwrap().push(request.clone());
                let lower = request.to_ascii_lowercase();
                let foreign = lower.contains("\r\norigin:") || lower.contains("\r\nreferer:");
                let answer = if foreign || !lower.contains("\r\nhost: local-tailscaled.sock\r\n") {
                    Some(said(403, "", "invalid localapi request"))
                } else if request.starts_with("GET /localapi/v0/status?peers=false HTTP/1.1\r\n") {
                    Some(said(200, "", &status))
                } else if request.starts_with("GET /localapi/v0/cert/") {
                    certificate()
                } else {
                    Some(said(404, "", "unknown"))
                };
                match answer {
                    Some(answer) => {
                        let _ = stream.write_all(&answer).await;
                    }
                    // The other side gives up.
                    None => drop(stream.read_u8().await),
                }
            }
        });
        Self { folder, asked, task }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("tailscaled.sock")
    }

    fn source(&self) -> TailscaleSource {
        let config = Tailscale { socket: self.socket() };
        let web = Web::plain(provider(), MAX_ANSWER_BYTES).unwrap();
        let web = web.within(Duration::from_millis(500));
        TailscaleSource::with(&config, &[NAME.to_owned()], provider(), web).unwrap()
    }

    async fn look(&self) -> Looked {
        self.source().look(at(NOW), false).await
    }

    fn questions(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter_map(|text| text.split_whitespace().nth(1).map(str::to_owned)).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn said(status: u16, fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\n{fields}content-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

fn running() -> String {
    format!(
        r#"{{"BackendState":"Running","MagicDNSSuffix":"tail1.ts.net","CertDomains":["{NAME}"]}}"#
    )
}

/// A chain and its key of these days of November 2026.
fn issued(name: &str, from: u8, until: u8) -> (String, String) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2026, 11, from);
    params.not_after = rcgen::date_time_ymd(2026, 11, until);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn pair(name: &str) -> String {
    let (chain, key) = issued(name, 1, 30);
    key + &chain
}

fn fault(looked: &Looked) -> &str {
    assert!(looked.fresh.is_none());
    looked.fault.as_deref().unwrap()
}

#[tokio::test]
async fn fetches_the_pair_and_asks_again_ahead_of_its_end() {
    let pair = pair(NAME);
    let daemon = Daemon::start(&running(), move || Some(said(200, "", &pair)));
    let source = daemon.source();
    let kept = source.kept(at(NOW)).await;
    assert!(kept.fresh.is_none() && kept.again == Some(at(NOW)));
    assert!(daemon.questions().is_empty(), "nobody is asked before the endpoint listens");

    // 29 days from the first to the thirtieth: the last third begins on the 20th.
    let early = at("2026-11-02T00:00:00Z");
    let looked = source.look(early, false).await;
    assert_eq!(looked.fresh.as_ref().unwrap().validity.until, at("2026-11-30T00:00:00Z"));
    let again = looked.again.unwrap();
    assert!(again >= at("2026-11-02T12:00:00Z") && again <= at("2026-11-02T13:12:00Z"), "{again}");
    let second = source.look(early, false).await;
    assert!(second.fresh.is_none() && second.fault.is_none(), "the same is not given twice");
    assert_eq!(
        daemon.questions(),
        [
            "/localapi/v0/status?peers=false".to_owned(),
            format!("/localapi/v0/cert/{NAME}?type=pair&min_validity=24h0m0s"),
            "/localapi/v0/status?peers=false".to_owned(),
            format!("/localapi/v0/cert/{NAME}?type=pair&min_validity=232h0m0s"),
        ]
    );
    assert_eq!(source.standing().issuer.as_deref(), Some("tailscaled"));
}

#[tokio::test]
async fn asks_more_and_more_seldom_when_the_last_third_brings_nothing_new() {
    let pair = pair(NAME);
    let daemon = Daemon::start(&running(), move || Some(said(200, "", &pair)));
    let source = daemon.source();
    let now = at(NOW);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let again = source.look(now, false).await.again.unwrap();
        pauses.push(again.duration_since(now).as_secs());
    }
    assert!((60..=66).contains(&pauses[0]), "{pauses:?}");
    assert!(pauses[7] >= 3600 && pauses[7] <= 3960, "{pauses:?}");
}

#[tokio::test]
async fn gives_the_renewed_one() {
    let pairs = [pair(NAME), pair(NAME)].map(|pair| said(200, "", &pair));
    let count = Mutex::new(0);
    let daemon = Daemon::start(&running(), move || {
        let mut count = count.lock().unwrap();
        *count += 1;
        pairs.get(*count - 1).cloned()
    });
    let source = daemon.source();
    assert!(source.look(at(NOW), false).await.fresh.is_some());
    assert!(source.look(at(NOW), false).await.fresh.is_some());
}

#[tokio::test]
async fn says_what_to_do_about_each_refusal_and_waits_as_long_as_it_is_told() {
    let cases: [(u16, &str, &str, &str, i64); 6] = [
        (403, "", "access denied", "TS_PERMIT_CERT_UID", 5),
        (429, "retry-after: 7200\r\n", "slow down", "too often", 7200),
        (429, "", "slow down", "too often", 3600),
        (429, "retry-after: Sun, 22 Nov 2026 14:00:00 GMT\r\n", "", "too often", 7200),
        (500, "", "acme: \u{1b}[31m no", "status 500: acme: \\u{1b}[31m no", 5),
        (302, "location: http://x/\r\n", "", "status 302", 5),
    ];
    for (status, fields, body, says, least) in cases {
        let answer = said(status, fields, body);
        let daemon = Daemon::start(&running(), move || Some(answer.clone()));
        let looked = daemon.look().await;
        assert!(fault(&looked).contains(says), "{looked:?}");
        let pause = looked.again.unwrap().duration_since(at(NOW)).as_secs();
        assert!(pause >= least && pause <= least + least / 10 + 1, "{status}: {pause}");
    }
}

#[tokio::test]
async fn gives_up_on_a_daemon_that_is_silent_or_never_ends() {
    let silent = Daemon::start(&running(), || None);
    let looked = silent.look().await;
    assert!(fault(&looked).contains("no answer"), "{looked:?}");
    let long = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n".to_vec();
    let long = [long, vec![b'a'; 2 * 1024 * 1024]].concat();
    let endless = Daemon::start(&running(), move || Some(long.clone()));
    let looked = endless.look().await;
    assert!(fault(&looked).contains("longer than"), "{looked:?}");
}

#[tokio::test]
async fn keeps_what_is_served_when_a_later_answer_is_bad() {
    let (good, other) = (pair(NAME), pair("other.tail1.ts.net"));
    let (chain, key) = issued(NAME, 1, 30);
    let (other_chain, other_key) = issued(NAME, 1, 30);
    let (old_chain, old_key) = issued(NAME, 1, 20);
    let (young_chain, young_key) = issued(NAME, 25, 30);
    let middle = good.len() / 2;
    let split = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned() + &good;
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("for another name", said(200, "", &other)),
        ("does not belong", said(200, "", &(other_key.clone() + &chain))),
        ("does not belong", said(200, "", &(key.clone() + &other_chain))),
        ("private key stands among", said(200, "", &(key.clone() + &chain + &other_key))),
        ("private key stands among", said(200, "", &(chain.clone() + &key))),
        ("there is no certificate", said(200, "", &(key.clone() + "# nothing\n--\n--"))),
        ("not two PEM blocks", said(200, "", &key)),
        ("not two PEM blocks", said(200, "", "garbage")),
        ("not two PEM blocks", said(200, "", "")),
        ("no key with its certificate", said(200, "", &good[..middle])),
        ("it ended on", said(200, "", &(old_key + &old_chain))),
        ("it begins on", said(200, "", &(young_key + &young_chain))),
        ("no answer", b"\x16\x03\x01 no HTTP at all\r\n\r\n".to_vec()),
        // A second answer in the first: one question, one answer.
        ("not two PEM blocks", split.into_bytes()),
        ("status 204", b"HTTP/1.1 204 X\r\n\r\n".to_vec()),
    ];
    let count = Arc::new(Mutex::new(0));
    let answers: Vec<Vec<u8>> = bad.iter().map(|(_, answer)| answer.clone()).collect();
    let good = said(200, "", &good);
    let counted = Arc::clone(&count);
    let daemon = Daemon::start(&running(), move || {
        let number = *counted.lock().unwrap();
        Some(if number == 0 { good.clone() } else { answers[number - 1].clone() })
    });
    let source = daemon.source();
    assert!(source.look(at(NOW), false).await.fresh.is_some());
    for (number, (says, _)) in bad.iter().enumerate() {
        *count.lock().unwrap() = number + 1;
        let looked = source.look(at(NOW), false).await;
        assert!(fault(&looked).contains(says), "{says}: {looked:?}");
        assert!(!fault(&looked).contains("BEGIN"), "{looked:?}");
        assert_eq!(source.standing().last_error.as_deref(), looked.fault.as_deref());
    }
}

#[tokio::test]
async fn asks_only_for_a_name_that_the_tailnet_has() {
    let other = running().replace(NAME, "evil.ts.net\\u001b");
    let cases = [
        (running().replace("Running", "NeedsLogin"), "tailscale up"),
        (other, "only for: evil.ts.net\\u{1b}"),
        (r#"{"BackendState":"Running","CertDomains":null}"#.into(), "only for: none"),
        (r#"{"BackendState":"Running"}"#.into(), "only for: none"),
        ("<html>".into(), "does not answer as tailscaled does"),
        ("[]".into(), "does not answer as tailscaled does"),
    ];
    for (status, says) in cases {
        let daemon = Daemon::start(&status, || panic!("asked for a certificate"));
        let looked = daemon.look().await;
        assert!(fault(&looked).contains(says), "{looked:?}");
        assert_eq!(daemon.questions().len(), 1);
    }
    let dotted = running().replace(NAME, "NODE.tail1.ts.net.");
    let pair = pair(NAME);
    let daemon = Daemon::start(&dotted, move || Some(said(200, "", &pair)));
    assert!(daemon.look().await.fresh.is_some());
}

#[tokio::test]
async fn trusts_no_socket_of_another_user_and_says_when_there_is_none() {
    let daemon = Daemon::start(&running(), || None);
    if geteuid().is_root() {
        std::os::unix::fs::chown(daemon.socket(), Some(65_534), None).unwrap();
        let looked = daemon.look().await;
        assert!(fault(&looked).contains("belongs to user 65534"), "{looked:?}");
        assert!(daemon.questions().is_empty());
    }
    std::fs::remove_file(daemon.socket()).unwrap();
    assert!(fault(&daemon.look().await).contains("is tailscaled running?"));
    std::fs::write(daemon.socket(), "").unwrap();
    assert!(fault(&daemon.look().await).contains("is no socket"));
    std::fs::remove_file(daemon.socket()).unwrap();
    std::os::unix::fs::symlink("/dev/null", daemon.socket()).unwrap();
    assert!(fault(&daemon.look().await).contains("is no socket"));
}

#[test]
fn takes_one_plain_name() {
    let make = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        TailscaleSource::new(&Tailscale::default(), &names, provider())
    };
    assert_eq!(make(&["Node.Tail1.ts.net."]).unwrap().name, NAME);
    for names in [
        &[][..],
        &["a.ts.net", "b.ts.net"],
        &["*.ts.net"],
        &["a.ts.net/../status"],
        &["a.ts.net?type=key"],
        &["a.ts.net HTTP/1.1\r\nOrigin: x"],
        &["100.64.0.1"],
    ] {
        let error = make(names).unwrap_err();
        assert!(!error.contains('\r'), "{error}");
    }
}

#[test]
fn writes_times_as_go_does() {
    for (seconds, text) in [(0, "0h0m1s"), (86_400, "24h0m0s"), (3_661, "1h1m1s")] {
        assert_eq!(go_duration(SignedDuration::from_secs(seconds)), text);
    }
}

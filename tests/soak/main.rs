//! Does the program hold on to anything over time? 200 connections come and go for as long as
//! `ENDPOINT_SOAK_SECONDS` says (10 by default), over a path that loses one datagram in a hundred, while keys
//! are revoked and added again and certificates are swapped.

mod churn;

use std::{
    fs,
    net::SocketAddr,
    path::Path as Folder,
    sync::Arc,
    time::{Duration, Instant},
};

use endpoint_tests::{
    machine::{Machine, Server},
    node::identity,
    path::{Impairment, Path},
    until,
};

use self::churn::{Churn, PEERS};

/// Connections at one time.
const CONNECTIONS: usize = 200;
/// What the program's memory may grow by in ten minutes, in bytes, once it has warmed up.
const MOST_SLOPE: f64 = (1 << 20) as f64;
/// Below this a slope says nothing: the allocator's own breathing is larger.
const LONG_ENOUGH: Duration = Duration::from_secs(10 * 60);

/// What the program holds.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    memory: u64,
    descriptors: usize,
    tasks: u64,
    connections: u64,
}

/// Chance may give one peer more connections than the eight of the default.
const MANY: [&str; 2] = ["--option", "max-connections=200"];

fn sample(machine: &Machine, server: &Server, began: Instant) -> Sample {
    let process = format!("/proc/{}", server.running.pid());
    let memory = server.status_bytes("VmRSS");
    let descriptors = fs::read_dir(format!("{process}/fd")).unwrap().count();
    let status = machine.json(&["status"]);
    let number = |name: &str| status[name].as_u64().unwrap();
    let (tasks, connections) = (number("tasks"), number("connections"));
    Sample { at: began.elapsed(), memory, descriptors, tasks, connections }
}

/// Bytes in ten minutes, by least squares.
fn slope(samples: &[Sample]) -> f64 {
    let count = samples.len() as f64;
    let x = |sample: &Sample| sample.at.as_secs_f64() / 600.0;
    let y = |sample: &Sample| sample.memory as f64;
    let (mean_x, mean_y) =
        (samples.iter().map(x).sum::<f64>() / count, samples.iter().map(y).sum::<f64>() / count);
    let above: f64 = samples.iter().map(|s| (x(s) - mean_x) * (y(s) - mean_y)).sum();
    let below: f64 = samples.iter().map(|s| (x(s) - mean_x).powi(2)).sum();
    if below == 0.0 { 0.0 } else { above / below }
}

/// A new certificate, laid where the program looks: both beside, then both moved.
fn swap(folder: &Folder, serial: usize) {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), format!("serial-{serial}.example")];
    let chain = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem();
    for (name, text) in [("c.pem", chain), ("k.pem", key.serialize_pem())] {
        fs::write(folder.join(name).with_extension("new"), text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(folder.join(name).with_extension("new"), mode).unwrap();
    }
    for name in ["c.pem", "k.pem"] {
        fs::rename(folder.join(name).with_extension("new"), folder.join(name)).unwrap();
    }
}

/// A machine with a site, a certificate in files, and eight peers.
fn machine() -> Machine {
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    let folder = machine.state().parent().unwrap().to_owned();
    fs::create_dir_all(folder.join("www")).unwrap();
    fs::write(folder.join("www/file"), churn::file()).unwrap();
    swap(&folder, 0);
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let config = format!(
        "[[site]]\nnames = [\"localhost\"]\nroot = {:?}\ncertificate = {{ cert = {:?}, key = {:?} }}\n",
        path("www"),
        path("c.pem"),
        path("k.pem")
    );
    fs::write(machine.file("endpoint.toml"), config).unwrap();
    for peer in PEERS {
        let key = identity(peer).fingerprint().to_string();
        let said = machine.run(&[&["trust", "add", &key], &MANY[..]].concat());
        assert_eq!(said.code(), 0, "{said:?}");
    }
    machine
}

fn seconds() -> u64 {
    let asked = std::env::var("ENDPOINT_SOAK_SECONDS").ok();
    asked.map_or(10, |asked| asked.parse().expect("ENDPOINT_SOAK_SECONDS is a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_held_on_to_while_connections_keys_and_certificates_come_and_go() {
    let machine = Arc::new(machine());
    let folder = machine.state().parent().unwrap().to_owned();
    let mut server = machine.serve_with(&[]);
    let address: SocketAddr = server.address().parse().unwrap();
    let lossy = Impairment { loss: 10, ..Impairment::default() };
    let path = Path::to(address, 1, lossy);
    // What is made once is there before the baseline: one of each kind has been served.
    let once = Churn::new(address, path.addr());
    once.each_kind_once().await;
    until("the first ones are gone", || machine.json(&["status"])["connections"] == 0).await;
    let baseline = tokio::time::timeout(QUIET, settled(&machine, &server)).await.unwrap();

    let (began, lasts) = (Instant::now(), Duration::from_secs(seconds()));
    let churn = Churn::new(address, path.addr());
    let clients: Vec<_> =
        (0..CONNECTIONS).map(|n| tokio::spawn(Arc::clone(&churn).keep(n as u64))).collect();
    let (mut samples, mut swaps, mut revocations) = (Vec::new(), 0, 0);
    while began.elapsed() < lasts {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let peer = PEERS.start + u8::try_from(revocations % PEERS.len()).unwrap();
        revocations += 1;
        revoke_and_add(&machine, &churn, peer).await;
        if revocations % 3 == 0 {
            swaps += 1;
            swap(&folder, swaps);
        }
        path.forget_idle(Duration::from_secs(60));
        samples.push(sample(&machine, &server, began));
    }
    churn.stop();
    for client in clients {
        client.await.expect("no client panics");
    }
    // What vanished without a word is given up after the idle timeout of 30 s.
    let end = tokio::time::timeout(QUIET, settled(&machine, &server)).await.unwrap_or_else(|_| {
        panic!("it does not come to rest: {:?}", sample(&machine, &server, began))
    });
    let most = samples.iter().map(|sample| sample.connections).max().unwrap_or(0);
    let peak = samples.iter().map(|sample| sample.memory).max().unwrap_or(0);
    // The first third is for warming up; of a short run all of it is.
    let long = lasts >= LONG_ENOUGH;
    let slope = slope(&samples[samples.len() / 3..]);
    let grows = match long {
        true => format!(", {:+.0} KiB in ten minutes", slope / 1024.0),
        false => String::new(),
    };
    let ends = churn.ends();
    println!(
        "acceptance: soak of {:.0?}: {} connections served, {} requests, {} refused as revoked, {} failed; \
         {most} at one time; {revocations} revocations, {swaps} certificates; memory {} KiB at first, {} at \
         the most{grows}; descriptors {} then {}, tasks {} then {}",
        began.elapsed(),
        ends.connections,
        ends.requests,
        ends.revoked,
        ends.failed.len(),
        baseline.memory >> 10,
        peak >> 10,
        baseline.descriptors,
        end.descriptors,
        baseline.tasks,
        end.tasks,
    );
    println!("failed: {:?}", ends.failed);
    assert!(server.running.runs(), "the program ended");
    assert!(ends.requests > 100 && ends.revoked > 0, "{ends:?}");
    // A short run shares the machine, and a handshake has 5 s.
    let one_in = if long { 200 } else { 20 };
    assert!(ends.failed.len() * one_in <= ends.connections, "{:?}", ends.failed);
    assert!(end.descriptors <= baseline.descriptors, "{baseline:?} {end:?}");
    assert!(end.tasks <= baseline.tasks, "{baseline:?} {end:?}");
    if long {
        assert!(slope < MOST_SLOPE, "{slope} bytes in ten minutes");
    }
}

/// Longest wait until everything that ended is given back: the idle timeout and the closing periods.
const QUIET: Duration = Duration::from_secs(60);

/// Waits until no connection is there and nothing more is given back.
async fn settled(machine: &Machine, server: &Server) -> Sample {
    let mut last = sample(machine, server, Instant::now());
    let mut same = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = sample(machine, server, Instant::now());
        let rests =
            now.connections == 0 && (now.descriptors, now.tasks) == (last.descriptors, last.tasks);
        same = if rests { same + 1 } else { 0 };
        // Longer than a closing period lasts here, and than a connection waits for its first request.
        if same >= 12 {
            return now;
        }
        last = now;
    }
}

async fn revoke_and_add(machine: &Arc<Machine>, churn: &Arc<Churn>, peer: u8) {
    let key = identity(peer).fingerprint().to_string();
    let (machine, churn) = (Arc::clone(machine), Arc::clone(churn));
    let changes = tokio::task::spawn_blocking(move || {
        churn.revoked(peer, true);
        let add = [&["trust", "add", &key], &MANY[..]].concat();
        for change in [&["trust", "rm", &key][..], &add] {
            let said = machine.run(change);
            assert_eq!(said.code(), 0, "{said:?}");
        }
        churn.revoked(peer, false);
    });
    changes.await.expect("the set is changed");
}

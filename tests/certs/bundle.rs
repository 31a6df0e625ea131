//! A bundle through the library: served on every carrier, replaced while connections live, and what must not
//! take its place.

use std::{
    fs,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use endpoint_core::{
    Clock, Endpoint, Identity, TlsIdentity,
    bundle::{SignedBundle, signature_path},
    config::{Bundle, BundleLocation},
    endpoint::RenewError,
};
use endpoint_tests::{
    http::{VERSIONS, connect, get},
    node::{identity, noon},
    ports::free_port,
    wire::Client,
};
use http::StatusCode;
use rustls_pki_types::CertificateDer;

use crate::{files, info, issued, site};
use endpoint_tests::shown;

const NAME: &str = "shared.example";

/// A bundle in a folder, its signer, and an endpoint that serves it.
struct Scene {
    folder: tempfile::TempDir,
    signer: Identity,
    clock: Clock,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, signer: identity(9), clock: Clock::manual(noon()) }
    }

    fn bundle(&self) -> PathBuf {
        self.folder.path().join("bundle/site.bundle")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn identity(&self) -> TlsIdentity {
        TlsIdentity::Bundle(Bundle {
            location: BundleLocation::File(self.bundle()),
            signer: self.signer.public_key(),
        })
    }

    /// A signed bundle for the name, in date for two years, and its leaf.
    fn signed(&self, serial: u64) -> (SignedBundle, CertificateDer<'static>) {
        self.signed_by(&self.signer, serial, &[NAME])
    }

    fn signed_by(
        &self,
        signer: &Identity,
        serial: u64,
        names: &[&str],
    ) -> (SignedBundle, CertificateDer<'static>) {
        let made = issued(names, 2026, 2028);
        let (chain, key) = (made.chain.as_bytes(), made.key.as_bytes());
        let bundle = SignedBundle::sign(chain, key, serial, signer, self.clock.now()).unwrap();
        (bundle, made.leaf)
    }

    fn put(&self, serial: u64) -> CertificateDer<'static> {
        let (bundle, leaf) = self.signed(serial);
        bundle.save(self.bundle()).unwrap();
        leaf
    }

    async fn serve(&self) -> Endpoint {
        let builder = site(&self.clock).state_dir(self.state());
        builder.server_name(NAME, self.identity()).bind().await.unwrap()
    }
}

async fn leaf(endpoint: &Endpoint) -> CertificateDer<'static> {
    shown::everywhere(endpoint.local_addrs()[0], NAME).await.leaf().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn is_served_over_every_version_and_replaced_while_connections_live() {
    let scene = Scene::new();
    let first = scene.put(1);
    let endpoint = scene.serve().await;
    let address = endpoint.local_addrs()[0];
    assert_eq!(leaf(&endpoint).await, first);
    let told = info(&endpoint);
    assert_eq!((told.source, told.fallback, told.last_error), ("bundle", false, None));
    assert_eq!(told.issuer, Some(scene.signer.public_key().to_string()));

    let client = Client::new(&[]).wants_x509();
    let mut live = Vec::new();
    for version in VERSIONS {
        live.push(connect(version, address, NAME, &client).await.unwrap());
    }
    for serial in 2..5 {
        let next = scene.put(serial);
        if serial == 2 {
            // By itself: it is looked at once a second.
            endpoint_tests::until("the new bundle", || {
                info(&endpoint).next_at.is_some() && {
                    let chain = endpoint.certificate_chain(NAME).unwrap();
                    chain == rcgen_pem(&next)
                }
            })
            .await;
        } else {
            endpoint.renew_certificate(NAME).await.unwrap();
        }
        assert_eq!(leaf(&endpoint).await, next);
        for connection in &mut live {
            let answer = connection.send(get(NAME, "/")).await.unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "hello"));
        }
    }
    endpoint.shutdown().await;
    // Nothing is left beside the files, and nobody else can read what holds a key.
    assert_eq!(files(&scene.folder.path().join("bundle")), ["site.bundle", "site.bundle.sig"]);
    let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(scene.bundle()), 0o600);
    assert_eq!(mode(scene.folder.path().join("bundle")), 0o700);
    for name in files(&scene.state()) {
        let path = scene.state().join(&name);
        let private = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(path), private, "{name}");
        assert!(!name.contains("tmp") && !name.starts_with('.'), "{name} was left behind");
    }
}

fn rcgen_pem(leaf: &CertificateDer<'static>) -> String {
    let body = data_encoding::BASE64.encode(leaf);
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_take_its_place_is_named_and_the_old_one_stays() {
    let scene = Scene::new();
    let good = scene.put(10);
    let endpoint = scene.serve().await;
    assert_eq!(leaf(&endpoint).await, good);
    let (bundle, sig) = (scene.bundle(), signature_path(&scene.bundle()));
    let private = |path: &PathBuf, bytes: &[u8]| {
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    };

    type Attack<'a> = (&'static str, Box<dyn Fn() + 'a>);
    let attacks: Vec<Attack<'_>> = vec![
        (
            "the signature does not hold",
            Box::new(|| {
                let (next, _) = scene.signed(11);
                next.save(&bundle).unwrap();
                let mut bytes = next.document().to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                private(&bundle, &bytes);
            }),
        ),
        (
            "the signature does not hold",
            Box::new(|| {
                let (other, _) = scene.signed_by(&identity(8), 12, &[NAME]);
                other.save(&bundle).unwrap();
            }),
        ),
        ("an old bundle was put back", Box::new(|| scene.signed(9).0.save(&bundle).unwrap())),
        (
            "seen already with another content",
            Box::new(|| scene.signed(10).0.save(&bundle).unwrap()),
        ),
        (
            "is not good for `shared.example`",
            Box::new(|| {
                let (other, _) = scene.signed_by(&scene.signer, 13, &["other.example"]);
                other.save(&bundle).unwrap();
            }),
        ),
        (
            "ended on",
            Box::new(|| {
                let made = issued(&[NAME], 2024, 2026);
                let (chain, key) = (made.chain.as_bytes(), made.key.as_bytes());
                let then = "2025-06-01T00:00:00Z".parse().unwrap();
                let old = SignedBundle::sign(chain, key, 14, &scene.signer, then).unwrap();
                old.save(&bundle).unwrap();
            }),
        ),
        (
            // Swapped while it was fetched: the document of one, the signature of the next.
            "the signature does not hold",
            Box::new(|| {
                scene.signed(15).0.save(&bundle).unwrap();
                let (next, _) = scene.signed(16);
                fs::write(&sig, next.signature()).unwrap();
            }),
        ),
        (
            "others may have read or changed it",
            Box::new(|| {
                scene.signed(17).0.save(&bundle).unwrap();
                fs::set_permissions(&bundle, PermissionsExt::from_mode(0o640)).unwrap();
            }),
        ),
        (
            "the signature is none of",
            Box::new(|| {
                scene.signed(18).0.save(&bundle).unwrap();
                fs::write(&sig, "garbage\n").unwrap();
            }),
        ),
        (
            "does not exist",
            Box::new(|| {
                fs::remove_file(&bundle).unwrap();
            }),
        ),
    ];
    for (says, attack) in attacks {
        attack();
        let refused = endpoint.renew_certificate(NAME).await.unwrap_err();
        let RenewError::Failed(why) = &refused else { panic!("{says}: {refused:?}") };
        assert!(why.contains(says), "{says}: {why}");
        assert_eq!(info(&endpoint).last_error.as_ref(), Some(why), "{says}");
        assert!(!info(&endpoint).fallback, "{says}");
        assert_eq!(leaf(&endpoint).await, good, "{says}");
    }

    let _ = fs::remove_file(&sig);
    let next = scene.put(20);
    endpoint.renew_certificate(NAME).await.unwrap();
    assert_eq!((leaf(&endpoint).await, info(&endpoint).last_error), (next, None));
    endpoint.shutdown().await;

    // A restart remembers what was seen.
    scene.put(19);
    let endpoint = scene.serve().await;
    let told = info(&endpoint);
    assert!(told.fallback && told.last_error.unwrap().contains("an old bundle was put back"));
    endpoint.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_again_and_again_while_it_is_read_only_whole_ones_are_shown() {
    let scene = Scene::new();
    let mut leaves = vec![scene.put(1)];
    let endpoint = scene.serve().await;
    let made: Vec<_> = (2..40).map(|serial| scene.signed(serial)).collect();
    leaves.extend(made.iter().map(|(_, leaf)| leaf.clone()));
    let (path, last) = (scene.bundle(), leaves.last().unwrap().clone());
    // As careless as can be: first one file, then the other, neither by rename.
    let writer = std::thread::spawn(move || {
        for (bundle, _) in made {
            fs::write(signature_path(&path), bundle.signature()).unwrap();
            std::thread::yield_now();
            fs::write(&path, bundle.document()).unwrap();
        }
    });
    while !writer.is_finished() {
        let _ = endpoint.renew_certificate(NAME).await;
        let shown = leaf(&endpoint).await;
        assert!(leaves.contains(&shown));
    }
    writer.join().unwrap();
    let _ = endpoint.renew_certificate(NAME).await;
    assert_eq!((leaf(&endpoint).await, info(&endpoint).last_error), (last, None));
    endpoint.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_beyond_loopback_is_bound() {
    let scene = Scene::new();
    scene.put(1);
    for address in ["0.0.0.0:0", "[::]:0", "[::ffff:0.0.0.0]:0"] {
        let address: SocketAddr = address.parse().unwrap();
        let builder = site(&scene.clock).listen(address).server_name(NAME, scene.identity());
        let refused = builder.bind().await.unwrap_err().to_string();
        assert!(refused.contains("loopback only") && refused.contains(NAME), "{refused}");
    }
    // Sockets that somebody else bound count as well.
    let udp = UdpSocket::bind(("0.0.0.0", free_port())).unwrap();
    let tcp = TcpListener::bind(udp.local_addr().unwrap()).unwrap();
    let builder = site(&scene.clock).listen_on(udp, Some(tcp)).server_name(NAME, scene.identity());
    let refused = builder.bind().await.unwrap_err().to_string();
    assert!(refused.contains("loopback only") && refused.contains("0.0.0.0:"), "{refused}");
}

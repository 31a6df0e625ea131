//! Which secrets let a restart be noticed and an address be remembered?
//!
//! A few keys per listen address: for stateless resets (RFC 9000 §10.3), for sealing and recognising our own
//! connection ids, and for Retry and address tokens (RFC 9000 §8.1). Made once and kept in the state folder,
//! so that they survive restarts and a rotation of the identity key.
//!
//! Always true: two listeners never share a reset key, which would let one be used to reset the other's
//! connections (RFC 9000 §21.11); without a state folder, and for dialling, the keys are random.

#![allow(clippy::disallowed_methods, reason = "called by bind, before the endpoint listens")]

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::{hkdf, rand};
use quinn_proto::{
    DEFAULT_SUPPORTED_VERSIONS, EndpointConfig,
    crypto::{HandshakeTokenKey, HmacKey},
};
use zeroize::Zeroizing;

use super::{
    connection_id::{Generator, IdKeys, Ids, Issuer},
    quic_crypto::{ResetKey, TokenKey},
};

/// The secrets of one listen address.
#[derive(Clone)]
pub(crate) struct ListenKeys {
    reset: Arc<dyn HmacKey>,
    pub(crate) token: Arc<dyn HandshakeTokenKey>,
    /// Seal and mark connection ids. A packet whose id does not carry our mark is dropped without a
    /// reset, so after a restart the keys must be the same or nobody learns of it.
    ids: Arc<IdKeys>,
}

const SECRET_BYTES: usize = 32;

/// quinn keeps one clock for all resets of a socket, whoever they go to. After a restart ten thousand
/// connections learn of it within ten seconds; a packet with an id of ours, which a stranger first has to be
/// given, makes us send less than it has.
const RESET_INTERVAL: Duration = Duration::from_millis(1);
/// UDP payload that we take: an Ethernet frame less the IPv4 and UDP headers.
const MOST_UDP_BYTES: u16 = 1472;

impl ListenKeys {
    /// Keys that no other process or listener has.
    pub(crate) fn random() -> io::Result<Self> {
        let secret = fresh()?;
        Self::expand(&secret, "random")
    }

    /// The keys of `address`, read from `folder` or made there.
    pub(crate) fn kept(folder: &Path, address: SocketAddr) -> io::Result<Self> {
        let folder = folder.join("quic-keys");
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let name = address.to_string().replace([':', '[', ']', '%'], "_");
        let path = folder.join(format!("{name}.secret"));
        let secret = match read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => write(&path)?,
            read => read?,
        };
        Self::expand(&secret, &address.to_string())
    }

    fn expand(secret: &[u8; SECRET_BYTES], address: &str) -> io::Result<Self> {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"endpoint quic keys 1").extract(secret);
        let reset = derive(&prk, &[b"stateless reset", address.as_bytes()]);
        let token = derive(&prk, &[b"address token", address.as_bytes()]);
        let seal = derive(&prk, &[b"connection id seal", address.as_bytes()]);
        let mark = derive(&prk, &[b"connection id mark", address.as_bytes()]);
        let (seal, _) = seal.split_first_chunk().ok_or_else(|| io::Error::other("a short key"))?;
        Ok(Self {
            reset: Arc::new(ResetKey::new(&*reset)),
            token: Arc::new(TokenKey::new(&*token)),
            ids: Arc::new(IdKeys::new(seal, &*mark)?),
        })
    }

    /// How a socket with these keys names its connections and says that it does not know one.
    pub(crate) fn endpoint_config(&self) -> io::Result<EndpointConfig> {
        let mut config = EndpointConfig::new(Arc::clone(&self.reset));
        config
            .min_reset_interval(RESET_INTERVAL)
            .supported_versions(DEFAULT_SUPPORTED_VERSIONS.to_vec())
            .grease_quic_bit(true)
            .rng_seed(None)
            .max_udp_payload_size(MOST_UDP_BYTES)
            .map_err(|error| io::Error::other(error.to_string()))?;
        // Whoever makes a generator of it, the numbers go on.
        let ids = Arc::new(Ids::new(Arc::clone(&self.ids), Issuer::default())?);
        config.cid_generator(move || Box::new(Generator(Arc::clone(&ids))));
        Ok(config)
    }
}

/// Output length of a derivation.
struct Length;

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        SECRET_BYTES
    }
}

fn derive(prk: &hkdf::Prk, info: &[&[u8]]) -> Zeroizing<[u8; SECRET_BYTES]> {
    let mut out = Zeroizing::new([0; SECRET_BYTES]);
    // Expanding to the digest's own length cannot exceed HKDF's limit (RFC 5869 §2.3).
    let filled = prk.expand(info, Length).and_then(|okm| okm.fill(&mut *out));
    debug_assert!(filled.is_ok(), "one block is within the limit of HKDF");
    out
}

fn fresh() -> io::Result<Zeroizing<[u8; SECRET_BYTES]>> {
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    rand::fill(&mut *secret).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok(secret)
}

fn read(path: &Path) -> io::Result<Zeroizing<[u8; SECRET_BYTES]>> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(
            (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed(),
        )
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.mode() & 0o077 != 0 {
        return Err(refused(path, "is open to others; remove it, a new one is made"));
    }
    // Whoever put it there knows it, and could reset every connection (RFC 9000 §21.11).
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(refused(path, "belongs to another user; remove it, a new one is made"));
    }
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    if meta.len() != SECRET_BYTES as u64 {
        return Err(refused(path, "is damaged; remove it, a new one is made"));
    }
    file.read_exact(&mut *secret)?;
    Ok(secret)
}

/// Writes beside and links into place, so that a crash leaves no half and a racing process wins once.
fn write(path: &Path) -> io::Result<Zeroizing<[u8; SECRET_BYTES]>> {
    let secret = fresh()?;
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(&*secret)?;
    file.sync_all()?;
    let linked = fs::hard_link(&beside, path);
    fs::remove_file(&beside)?;
    match linked {
        Ok(()) => {
            if let Some(folder) = path.parent() {
                File::open(folder)?.sync_all()?;
            }
            Ok(secret)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(path),
        Err(error) => Err(error),
    }
}

fn refused(path: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} {what}", path.display()))
}

impl fmt::Debug for ListenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ListenKeys")
    }
}

#[cfg(test)]
mod tests {
    use quinn_proto::ConnectionIdGenerator as _;

    use super::*;

    fn reset_of(keys: &ListenKeys) -> Vec<u8> {
        let mut out = vec![0; keys.reset.signature_len()];
        keys.reset.sign(b"connection id", &mut out);
        out
    }

    #[test]
    fn keeps_one_secret_per_address_and_never_shares_it() {
        let folder = tempfile::tempdir().unwrap();
        let a: SocketAddr = "127.0.0.1:4433".parse().unwrap();
        let b: SocketAddr = "[::1]:4433".parse().unwrap();
        let first = reset_of(&ListenKeys::kept(folder.path(), a).unwrap());
        assert_eq!(first, reset_of(&ListenKeys::kept(folder.path(), a).unwrap()));
        assert_ne!(first, reset_of(&ListenKeys::kept(folder.path(), b).unwrap()));
        assert_ne!(
            reset_of(&ListenKeys::random().unwrap()),
            reset_of(&ListenKeys::random().unwrap())
        );
    }

    #[test]
    fn knows_its_own_connection_ids_after_a_restart_and_no_other_listeners() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b]: [SocketAddr; 2] =
            ["127.0.0.1:4433", "127.0.0.1:4434"].map(|at| at.parse().unwrap());
        let generator = |address| {
            let keys = ListenKeys::kept(folder.path(), address).unwrap();
            Generator(Arc::new(Ids::new(keys.ids, Issuer::default()).unwrap()))
        };
        let id = generator(a).generate_cid();
        assert!(generator(a).validate(&id).is_ok());
        assert!(generator(b).validate(&id).is_err());
    }

    #[test]
    fn refuses_a_secret_that_another_user_laid_there() {
        let folder = tempfile::tempdir().unwrap();
        let a: SocketAddr = "127.0.0.1:1".parse().unwrap();
        ListenKeys::kept(folder.path(), a).unwrap();
        let path = folder.path().join("quic-keys/127.0.0.1_1.secret");
        // Only root can give files away, and only root could read such a secret.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(4321), None).unwrap();
            let error = ListenKeys::kept(folder.path(), a).unwrap_err().to_string();
            assert!(error.contains("belongs to another user"), "{error}");
        }
    }

    #[test]
    fn refuses_a_secret_that_others_can_read_or_that_is_cut() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let a: SocketAddr = "127.0.0.1:1".parse().unwrap();
        ListenKeys::kept(folder.path(), a).unwrap();
        let path = folder.path().join("quic-keys/127.0.0.1_1.secret");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(
            ListenKeys::kept(folder.path(), a).unwrap_err().to_string().contains("open to others")
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, b"short").unwrap();
        assert!(ListenKeys::kept(folder.path(), a).unwrap_err().to_string().contains("damaged"));
    }
}
